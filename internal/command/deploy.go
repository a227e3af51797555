package command

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"minimega/internal/deploy"
	"minimega/pkg/minicli"
)

// deployments are the commands that start minimega on other hosts.
func deployments(d *Deps) []Command {
	return []Command{{
		Patterns: []string{
			"deploy <launch,> <hosts>",
			"deploy <launch,> <hosts> <user> [sudo,]",
			"deploy <flags,> [minimega flags]...",
			"deploy <stdout,> [path]",
			"deploy <stderr,> [path]",
			"deploy <hostkeys,> [known,new]",
		},
		Short:         "start minimega on other hosts over SSH",
		Long:          deployHelp,
		Run:           func(ctx context.Context, c *Call) (*minicli.Response, error) { return deployCommand(ctx, c, d.Deploy) },
		Interruptible: true,
	}, {
		Patterns: []string{"deploy <hosts> <user> <password> [sudo,]"},
		Short:    "start minimega on other hosts over SSH, with a password",
		Long: `Does the same as ` + "`deploy launch`" + `, but logs in with a password, which is also the answer if sudo asks for one. It appears in no list of processes,
log or history of minimega. Do not use it with -e or from a shell: the command line of a program can be seen by all users of this host.`,
		Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return launchDeployment(ctx, c, d.Deploy)
		},
		Secret:        []string{"password"},
		Last:          true,
		Interruptible: true,
	}, {
		Patterns: []string{"clear deploy flags"},
		Short:    "go back to the default flags of deployed minimegas",
		Long:     "Forgets what `deploy flags` set. The default is the flags of this minimega, with this host as head node.",
		Run: func(context.Context, *Call) (*minicli.Response, error) {
			d.Deploy.ClearFlags()
			return done(nil)
		},
	}}
}

const deployHelp = `Copies this minimega to /tmp on other hosts, checks the copy, starts it there in the background with nohup, and waits until it answers. Hosts are a range such as
n[1-10],m3, each with :port at its end where SSH listens at another port than 22. They are worked on in parallel; the answer has a line for each, and on
a host where it fails nothing is left.

	deploy launch n[1-10]              # log in as this daemon's user
	deploy launch n[1-10] root         # as root
	deploy launch n[1-10] user sudo    # as user, started as root by sudo, which must not ask for a password
	deploy n[1-10] user password       # with a password instead of a key, also for sudo where that word follows

Without a password the keys of the agent at SSH_AUTH_SOCK are used, and those of ~/.ssh (id_ed25519, id_ecdsa, id_rsa) that need no passphrase.

A host must be known: its key is looked up in ~/.ssh/known_hosts, /etc/ssh/ssh_known_hosts and the file ssh_known_hosts in the base directory. Of a host that is
not there nothing is believed, until ` + "`deploy hostkeys new`" + ` says so: it accepts the keys of hosts that were never seen before, and records them in the last of
these files. A key that is not the one known is always refused.

flags are those that minimega is started with there; by default those of this one, with this host as head node. -nostdin=true is added if missing. The key of the
mesh (-mesh-key FILE) is copied along, readable by its user only. stdout and stderr are files on the other host that get what it prints, /dev/null by default.`

func deployCommand(ctx context.Context, c *Call, d *deploy.Deployer) (*minicli.Response, error) {
	switch {
	case c.Chose("launch"):
		return launchDeployment(ctx, c, d)
	case c.Chose("flags"):
		if list := c.List("minimega"); len(list) > 0 {
			return done(d.SetFlags(list))
		}
		return text(quoted(d.Flags()))
	case c.Chose("hostkeys"):
		return deployHostKeys(c, d)
	}
	return deployOutput(c, d)
}

// quoted writes words as they can be typed.
func quoted(list []string) string {
	words := make([]string, len(list))
	for i, w := range list {
		words[i] = minicli.QuoteWord(w)
	}
	return strings.Join(words, " ")
}

func deployOutput(c *Call, d *deploy.Deployer) (*minicli.Response, error) {
	stdout, stderr := d.Output()
	set, now := d.SetStdout, stdout
	if c.Chose("stderr") {
		set, now = d.SetStderr, stderr
	}
	if c.Has("path") {
		return done(set(c.Str("path")))
	}
	return text(now)
}

func deployHostKeys(c *Call, d *deploy.Deployer) (*minicli.Response, error) {
	switch {
	case c.Chose("new"):
		d.SetAcceptNew(true)
	case c.Chose("known"):
		d.SetAcceptNew(false)
	case d.AcceptNew():
		return text("new")
	default:
		return text("known")
	}
	return done(nil)
}

// launchDeployment answers with a table of all hosts, and an error that names
// those that failed.
func launchDeployment(ctx context.Context, c *Call, d *deploy.Deployer) (*minicli.Response, error) {
	every := c.Session.Shared.StatusPeriod()
	var mu sync.Mutex // guards last
	last := time.Now()
	results, err := d.Launch(ctx, deploy.Request{
		Hosts: c.Str("hosts"), User: c.Str("user"), Password: c.Str("password"), Sudo: c.Chose("sudo"),
	}, func(done, total int) {
		mu.Lock()
		due := every > 0 && time.Since(last) >= every
		if due {
			last = time.Now()
		}
		mu.Unlock()
		if due {
			c.Status(fmt.Sprintf("deployed to %d of %d hosts", done, total))
		}
	})
	if err != nil {
		return nil, err
	}
	rows := make([][]string, len(results))
	for i, r := range results {
		rows[i] = []string{r.Host, "failed", r.PID, r.File}
		if r.Err == nil {
			rows[i][1] = "running"
		}
	}
	resp, _ := table([]string{"host", "result", "pid", "file"}, rows)
	return resp, deploy.Failed(results)
}
