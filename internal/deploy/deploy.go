// Package deploy starts minimega on other hosts over SSH. It sends this
// program's own file, and the key of the mesh where there is one, checks what
// arrived, starts it in the background, and waits until it answers. Hosts are
// done in parallel, each for itself: on one that fails nothing is left.
// Passwords are only ever said inside the encrypted connection.
package deploy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/ranges"
)

// Options are what a Deployer needs to know of its daemon.
type Options struct {
	Host        string // name of this host, the head node of those that are deployed
	KnownHosts  string // file for keys of hosts that were accepted, see SetAcceptNew
	DefaultBase string // base directory of a minimega without -base
	// Flags are those of this daemon.
	Flags func() (names, values []string)
	// Check says what is wrong with the flags of a daemon; nil for no check.
	Check  func(flags []string) error
	Binary string // what is sent; "" for the program itself
	Log    *slog.Logger
}

// Deployer holds the settings with which minimega is started on other hosts.
type Deployer struct {
	opts Options

	mu             sync.Mutex // guards the fields below
	flags          []string   // nil for the default
	stdout, stderr string
	acceptNew      bool
	last           int64 // number in the name of the last file
}

// New makes a Deployer with the default settings.
func New(o Options) *Deployer {
	if o.Binary == "" {
		o.Binary = "/proc/self/exe"
	}
	return &Deployer{opts: o, stdout: os.DevNull, stderr: os.DevNull}
}

// Output returns the files that take what minimega prints on its host.
func (d *Deployer) Output() (stdout, stderr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stdout, d.stderr
}

// SetStdout changes the file, on the other host, for standard output.
func (d *Deployer) SetStdout(path string) error { return d.setPath(&d.stdout, path) }

// SetStderr changes the file, on the other host, for standard error.
func (d *Deployer) SetStderr(path string) error { return d.setPath(&d.stderr, path) }

func (d *Deployer) setPath(field *string, path string) error {
	if !strings.HasPrefix(path, "/") {
		return errs.WithRemedy(errs.New(errs.Invalid, "%q is no absolute path", path), "it is a file on the other host, such as /tmp/minimega.log")
	}
	if err := checkWord("path", path); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	*field = path
	return nil
}

// AcceptNew reports whether hosts that were never seen before are trusted.
func (d *Deployer) AcceptNew() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.acceptNew }

// SetAcceptNew says whether hosts that were never seen before are trusted, and
// their keys recorded in Options.KnownHosts. A key that changed never is.
func (d *Deployer) SetAcceptNew(on bool) { d.mu.Lock(); d.acceptNew = on; d.mu.Unlock() }

// Request says where minimega is to run.
type Request struct {
	Hosts    string // a range such as n[1-10]; each may end in :port
	User     string // "" for the user of this daemon
	Password string // "" to log in with keys, of an agent or from ~/.ssh
	Sudo     bool   // start it as root by sudo(8)
}

// Result is how it went on one host.
type Result struct {
	Host string
	File string // the program on that host, "" after an error
	PID  string
	Err  error
}

// parallel is how many hosts are worked on at the same time.
const parallel = 32

// Launch starts minimega on hosts and returns a result for each, in order.
// progress, if there is one, is called after each, maybe of several at once. The error is for a request
// that is wrong for all of them; then nothing was done.
func (d *Deployer) Launch(ctx context.Context, r Request, progress func(done, total int)) ([]Result, error) {
	hosts, err := ranges.Split(r.Hosts)
	if err != nil {
		return nil, errs.New(errs.Invalid, "hosts: %w", err)
	}
	if len(hosts) == 0 {
		return nil, errs.New(errs.Invalid, "no hosts given")
	}
	p, err := d.prepare(r)
	if err != nil {
		return nil, err
	}
	defer p.close()
	results := make([]Result, len(hosts))
	slots := make(chan struct{}, parallel)
	var working sync.WaitGroup
	var done atomic.Int64
	for i, host := range hosts {
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			results[i] = p.launch(ctx, host)
			if n := int(done.Add(1)); progress != nil {
				progress(n, len(hosts))
			}
		})
	}
	working.Wait()
	return results, nil
}

// Failed is the error of results, nil if all went well: each host and its
// reason, or for many the first few.
func Failed(results []Result) error {
	var lines []string
	var first error
	failed := 0
	for _, r := range results {
		if r.Err == nil {
			continue
		}
		if failed++; first == nil {
			first = r.Err
		}
		if failed <= 20 {
			lines = append(lines, r.Host+": "+r.Err.Error())
		}
	}
	if failed == 0 {
		return nil
	}
	if more := failed - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return errs.New(errs.KindOf(first), "minimega was not started on %d of %d hosts:\n%s", failed, len(results), strings.Join(lines, "\n"))
}

// fileName is the path of the program on other hosts, a new one each time.
func (d *Deployer) fileName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = max(d.last+1, time.Now().Unix())
	return fmt.Sprintf("/tmp/minimega_deploy_%d", d.last)
}

// prepare collects what is the same for all hosts.
func (d *Deployer) prepare(r Request) (*plan, error) {
	p := &plan{Request: r, log: d.opts.Log, file: d.fileName()}
	p.stdout, p.stderr = d.Output()
	flags, key := withKeyAt(d.Flags(), p.file+".key")
	p.flags = flags
	p.base = flagValue(flags, "base", d.opts.DefaultBase)
	if p.User == "" {
		name, err := userName()
		if err != nil {
			return nil, err
		}
		p.User = name
	}
	for _, word := range append(slices.Clone(flags), p.User) {
		if err := checkWord("user or flag", word); err != nil {
			return nil, err
		}
	}
	var err error
	if p.binary, err = open(d.opts.Binary, "700"); err != nil {
		return nil, fmt.Errorf("the program itself: %w", err)
	}
	if key != "" {
		if p.key, err = open(key, "600"); err != nil {
			p.close()
			return nil, fmt.Errorf("the key of the mesh: %w", err)
		}
	}
	if p.keys, err = newKeyring(d.opts.KnownHosts, d.AcceptNew(), r.Password); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// Flags are those that minimega is started with on other hosts.
func (d *Deployer) Flags() []string {
	d.mu.Lock()
	flags := slices.Clone(d.flags)
	d.mu.Unlock()
	if flags == nil {
		flags = d.defaultFlags()
	}
	return flags
}

// SetFlags replaces the flags. Without -nostdin among them, -nostdin=true is
// appended: there is nobody to type.
func (d *Deployer) SetFlags(flags []string) error {
	flags = slices.Clone(flags)
	if flagValue(flags, "nostdin", "") == "" {
		flags = append(flags, "-nostdin=true")
	}
	for _, flag := range flags {
		if err := checkWord("flag", flag); err != nil {
			return err
		}
	}
	if d.opts.Check != nil {
		if err := d.opts.Check(flags); err != nil {
			return errs.Wrap(errs.Invalid, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flags = flags
	return nil
}

// ClearFlags goes back to the default flags.
func (d *Deployer) ClearFlags() { d.mu.Lock(); d.flags = nil; d.mu.Unlock() }
