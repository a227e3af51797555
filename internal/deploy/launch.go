package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/undo"
)

// plan is what is the same on all hosts of a launch.
type plan struct {
	Request
	log            *slog.Logger
	file           string // of the program there; that of the key ends in .key
	flags          []string
	base           string // base directory of the minimega there
	stdout, stderr string
	binary, key    *payload // key is nil if the mesh has none
	keys           *keyring
}

func (p *plan) close() {
	p.binary.close()
	p.key.close()
	if p.keys != nil {
		p.keys.close()
	}
}

// The longest that a step on one host may take, beside what is said where it
// is used.
const (
	sendTimeout   = 10 * time.Minute // the program's 30 MB or so
	startTimeout  = 90 * time.Second // the script gives up after 60
	removeTimeout = 10 * time.Second
)

// launch does one host.
func (p *plan) launch(ctx context.Context, host string) Result {
	t := &target{plan: p}
	defer t.hangUp()
	err := undo.Run(ctx,
		undo.Step{Name: "connect", Do: func(ctx context.Context) (err error) {
			t.remote, err = p.connect(ctx, host)
			return err
		}},
		undo.Step{Name: "sudo", Do: t.sudo},
		undo.Step{Name: "send the program", Do: func(ctx context.Context) error { return t.send(ctx, p.binary, p.file) },
			Undo: func() error { return t.remove(p.file) }},
		undo.Step{Name: "send the key of the mesh", Do: func(ctx context.Context) error { return t.send(ctx, p.key, p.file+".key") },
			Undo: func() error { return t.remove(p.file + ".key") }},
		undo.Step{Name: "start", Do: t.start},
	)
	if err != nil {
		return Result{Host: host, Err: err}
	}
	p.log.Info("minimega deployed", "host", host, "user", p.User, "file", p.file, "pid", t.pid)
	return Result{Host: host, File: p.file, PID: t.pid}
}

// target is one host, once connected.
type target struct {
	*plan
	*remote
	root []string // what runs a command as root, nil for nothing
	asks bool     // sudo asks for the password
	pid  string   // of the minimega there
}

func (t *target) hangUp() {
	if t.remote != nil {
		t.remote.close()
	}
}

// sudo finds out how to become root there.
func (t *target) sudo(ctx context.Context) error {
	if !t.Sudo {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := t.run(ctx, "sudo -n -- true", nil)
	if err == nil {
		t.root = []string{"sudo", "-n", "--"}
		return nil
	}
	if t.Password == "" || ctx.Err() != nil {
		return errs.WithRemedy(errs.Wrap(errs.Permission, err), "allow the user sudo without a password, or give it: deploy HOSTS USER PASSWORD sudo")
	}
	// -k: it must ask, or the answer would be read by what it runs.
	t.root, t.asks = []string{"sudo", "-k", "-S", "-p", "", "--"}, true
	if _, err := t.asRoot(ctx, "true"); err != nil {
		return errs.Wrap(errs.Permission, err)
	}
	return nil
}

// asRoot runs a command, as root if that was wanted.
func (t *target) asRoot(ctx context.Context, command string) (string, error) {
	if t.root == nil {
		return t.run(ctx, command, nil)
	}
	command = words(t.root) + " " + command
	if !t.asks {
		return t.run(ctx, command, nil)
	}
	return t.run(ctx, command, strings.NewReader(t.Password+"\n"))
}

// send writes a file there; none for nil.
func (t *target) send(ctx context.Context, f *payload, path string) error {
	if f == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	_, err := t.run(ctx, sh(sendScript, path, f.mode, fmt.Sprint(f.size), f.sum), f.reader())
	return err
}

// remove takes files away there, and ends the minimega if it was started.
func (t *target) remove(files ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTimeout)
	defer cancel()
	_, err := t.asRoot(ctx, sh(removeScript, append([]string{t.pid}, files...)...))
	if err != nil {
		return fmt.Errorf("%s may be left there: %w", strings.Join(files, " "), err)
	}
	return nil
}

// pidLine is how the script says what it started.
var pidLine = regexp.MustCompile(`(?m)^minimega-pid ([0-9]{1,10})$`)

// start starts minimega there and waits until it answers.
func (t *target) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	said, err := t.asRoot(ctx, sh(startScript, append([]string{t.file, t.stdout, t.stderr, t.base}, t.flags...)...))
	if m := pidLine.FindStringSubmatch(said); m != nil {
		t.pid = m[1]
	}
	switch {
	case err == nil && t.pid == "":
		return errors.New("it was started, but its process is not known")
	case err != nil && ctx.Err() == nil:
		t.pid = "" // the script has ended it, or found it ended
	}
	return err
}
