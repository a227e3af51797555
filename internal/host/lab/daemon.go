package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"minimega/pkg/miniclient"
)

// Daemon is a minimega on a host of a lab, with a base directory of its own.
type Daemon struct {
	Host *Host
	Base string
	Log  string // file with what it prints

	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
	err   error         // valid then

	mu   sync.Mutex // guards conn
	conn *miniclient.Conn
}

// How long a daemon may take to open its socket, and to end when asked to.
const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 2 * time.Minute
)

// Start starts the minimega binary on the host, as a daemon without a prompt
// in the host's directory, and waits for its socket. A second one on the same
// host goes on with the base directory of the first.
func (h *Host) Start(ctx context.Context, binary string, flags ...string) (*Daemon, error) {
	d := &Daemon{Host: h, Base: filepath.Join(h.Dir, "base"), Log: filepath.Join(h.Dir, "log"), ended: make(chan struct{})}
	if c, err := d.Dial(ctx); err == nil {
		return nil, errors.Join(fmt.Errorf("a minimega runs on %s already", h.Name), c.Close())
	}
	log, err := os.OpenFile(d.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd = h.Command(context.WithoutCancel(ctx), binary, append([]string{"-nostdin", "-base", d.Base}, flags...)...)
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = h.Dir, log, log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.err = d.cmd.Wait(); close(d.ended) }()
	if err := d.wait(ctx); err != nil {
		d.Kill()
		return nil, fmt.Errorf("minimega on %s: %w\n%s", h.Name, err, d.Output())
	}
	return d, nil
}

// wait returns when the socket answers.
func (d *Daemon) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := miniclient.Dial(ctx, d.Base)
		if err == nil {
			d.conn = conn
			return nil
		}
		select {
		case <-d.ended:
			return fmt.Errorf("it ended: %v", d.err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// StartAll starts a daemon on every host of the lab at the same time. flags
// gives each its flags, nil for none. If one fails, none is left.
func (l *Lab) StartAll(ctx context.Context, binary string, flags func(*Host) []string) ([]*Daemon, error) {
	daemons := make([]*Daemon, len(l.Hosts))
	failed := make([]error, len(l.Hosts))
	var starting sync.WaitGroup
	for i, h := range l.Hosts {
		starting.Go(func() {
			var f []string
			if flags != nil {
				f = flags(h)
			}
			daemons[i], failed[i] = h.Start(ctx, binary, f...)
		})
	}
	starting.Wait()
	err := errors.Join(failed...)
	if err == nil {
		return daemons, nil
	}
	for _, d := range daemons {
		if d != nil {
			err = errors.Join(err, d.Stop())
		}
	}
	return nil, err
}

// StopAfter stops daemons when the test ends, and shows what they printed if
// the test failed.
func StopAfter(t testing.TB, daemons ...*Daemon) {
	t.Cleanup(func() {
		var stopping sync.WaitGroup
		for _, d := range daemons {
			stopping.Go(func() {
				if err := d.Stop(); err != nil {
					t.Errorf("minimega on %s: %v", d.Host.Name, err)
				}
			})
		}
		stopping.Wait()
		if t.Failed() {
			for _, d := range daemons {
				t.Logf("minimega on %s printed:\n%s", d.Host.Name, d.Output())
			}
		}
	})
}

// Conn is the daemon's own connection, for one command at a time.
func (d *Daemon) Conn() *miniclient.Conn { d.mu.Lock(); defer d.mu.Unlock(); return d.conn }

// Dial makes another connection, which the caller closes.
func (d *Daemon) Dial(ctx context.Context) (*miniclient.Conn, error) {
	return miniclient.Dial(ctx, d.Base)
}

// Do runs a command on a connection of its own and returns all answers. Its
// error names the hosts that failed, as miniclient.Conn.Do does.
func (d *Daemon) Do(ctx context.Context, command string) ([]*miniclient.HostResponse, error) {
	c, err := d.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	list, err := c.Do(ctx, command)
	var answers miniclient.Responses
	for _, r := range list {
		answers = append(answers, r.Resp...)
	}
	return answers, err
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Running reports whether the daemon has not ended yet.
func (d *Daemon) Running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Ended is closed when the daemon has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Kill ends the daemon by SIGKILL, as a crash does, and waits for that. What
// it started lives on.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.ended
	d.hangUp()
}

// Stop asks the daemon to end (SIGTERM) and waits until it has. Its error is
// that of the daemon; it is nil if the daemon was killed or stopped before.
func (d *Daemon) Stop() error {
	if !d.Running() {
		d.hangUp()
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-d.ended:
		d.hangUp()
		return d.err
	case <-late.C:
		d.Kill()
		return fmt.Errorf("it did not end within %v", stopTimeout)
	}
}

func (d *Daemon) hangUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

// Output is what the daemons of this host have printed so far.
func (d *Daemon) Output() string {
	text, _ := os.ReadFile(d.Log)
	return string(text)
}
