package android

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/qmp"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

const (
	logName   = "android-emulator.log"
	undoTime  = 10 * time.Second
	pollFirst = 5 * time.Millisecond
	pollLast  = 100 * time.Millisecond
)

// launch is one machine in the making.
type launch struct {
	e    *Engine
	spec *vm.Spec

	claim   *claim
	before  map[string]bool // names in the instance directory
	proc    *host.Proc
	console *console
}

// Launch makes a machine that waits at its first instruction.
func (e *Engine) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.StartTimeout)
	defer cancel()
	l := &launch{e: e, spec: s}
	defer func() { // in the end the emulator listens, or has gone
		if l.claim != nil {
			l.claim.release()
		}
	}()
	err := undo.Run(ctx,
		undo.Step{Name: "reserve ports", Do: l.reserve},
		undo.Step{Name: "start emulator", Do: l.start, Undo: l.end},
		undo.Step{Name: "connect to QMP", Do: l.release},
		undo.Step{Name: "connect to console", Do: l.connect},
		undo.Step{Name: "pause", Do: l.pause},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	return newMachine(l), nil
}

func (l *launch) path(name string) string { return filepath.Join(l.spec.Dir, name) }

func (l *launch) reserve(context.Context) (err error) {
	if l.claim, err = claimPorts(l.spec.Config.ConsoleBasePort); err != nil {
		return err
	}
	return l.useConsole(l.claim.port)
}

func (l *launch) useConsole(port int) error {
	home, err := l.e.home()
	l.console = &console{port: port, home: home}
	return err
}

// start runs the emulator. It prints to a file, also before it opens the file
// itself: it must be able to print when nobody is there to read.
func (l *launch) start(ctx context.Context) error {
	path, err := findEmulator(l.spec.Config)
	if err != nil {
		return err
	}
	args, err := l.e.arguments(ctx, l.spec, l.console.port)
	if err != nil {
		return err
	}
	env, err := l.e.environment(l.spec.Config)
	if err != nil {
		return err
	}
	if err := l.remember(); err != nil {
		return err
	}
	log, err := os.OpenFile(l.path(logName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	l.spec.Log.Debug("start Android emulator", "vm", l.spec.Name, "command", path+" "+strings.Join(args, " "))
	if l.proc, err = host.StartProc(host.ProcSpec{Path: path, Args: args, Env: env, Output: log}); err != nil {
		return errors.Join(err, l.forget())
	}
	return nil
}

// remember notes what is in the instance directory. A socket of an earlier run
// goes: it would be taken for that of this one.
func (l *launch) remember() error {
	if err := os.Remove(l.path("qmp")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(l.spec.Dir)
	l.before = map[string]bool{}
	for _, e := range entries {
		l.before[e.Name()] = true
	}
	return err
}

// forget removes what has come to the instance directory since.
func (l *launch) forget() error {
	entries, err := os.ReadDir(l.spec.Dir)
	failed := []error{err}
	for _, e := range entries {
		if !l.before[e.Name()] {
			failed = append(failed, os.RemoveAll(l.path(e.Name())))
		}
	}
	return errors.Join(failed...)
}

// end takes back start.
func (l *launch) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	return errors.Join(l.proc.Kill(ctx), l.proc.Close(), l.forget())
}

// release makes QEMU go on to the machine's first instruction: it waits for a
// client on its control socket before it makes the machine.
func (l *launch) release(ctx context.Context) error {
	return l.until(ctx, "control socket", func(ctx context.Context) error {
		c, err := qmp.Dial(ctx, l.path("qmp"))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// connect waits for the console, and makes sure that it is the one of our
// device and that it obeys us.
func (l *launch) connect(ctx context.Context) error {
	return l.until(ctx, "console", func(ctx context.Context) error {
		name, err := l.console.name(ctx)
		if err == nil && name != l.spec.Config.AVDName {
			err = errs.New(errs.State, "the console on port %d belongs to the device %q", l.console.port, name)
		}
		return err
	})
}

// pause sees to it that the device does not run yet, whatever the emulator
// makes of QEMU's -S.
func (l *launch) pause(ctx context.Context) error { return l.console.avd(ctx, "stop") }

// until tries again while nobody listens and the emulator runs.
func (l *launch) until(ctx context.Context, what string, try func(context.Context) error) error {
	for wait := pollFirst; ; wait = min(wait*3/2, pollLast) {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			return l.failed(ctx, what, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-l.proc.Done():
			t.Stop()
			return l.ended()
		case <-ctx.Done():
			t.Stop()
			return l.failed(ctx, what, err)
		}
	}
}

// failed words a final failure. An emulator that is about to end closes its
// sockets first, and its last words say more: it gets a moment.
func (l *launch) failed(ctx context.Context, what string, err error) error {
	if ctx.Err() == nil {
		t := time.NewTimer(time.Second)
		defer t.Stop()
		select {
		case <-l.proc.Done():
			return l.ended()
		case <-ctx.Done():
		case <-t.C:
			var no *refusal
			if errors.As(err, &no) {
				return errs.Wrap(errs.Permission, err)
			}
			return err
		}
	}
	err = errs.New(errs.Unreachable, "the emulator's %s does not answer: %w", what, ctx.Err())
	if words := lastWords(l.path(logName)); words != "" {
		err = errs.New(errs.Unreachable, "%w; it says: %s", err, words)
	}
	return err
}

func (l *launch) ended() error {
	err := errs.AtStep(endError(l.proc.Status(), l.path(logName)), "start emulator")
	if strings.Contains(err.Error(), "-read-only") { // two with the same device
		err = errs.WithRemedy(err, "give each VM its own `vm config android-avd`, or set `vm config android-extra-args -read-only`")
	}
	return err
}

// endError tells why an emulator ended, in its own words.
func endError(status fmt.Stringer, log string) error {
	words := lastWords(log)
	if words == "" {
		return errs.New(errs.State, "the emulator ended: %s, without a word", status)
	}
	return errs.New(errs.State, "the emulator ended: %s: %s", status, words)
}

func lastWords(path string) string {
	return host.LastWords(path, func(line string) bool { return strings.HasPrefix(line, "INFO ") })
}
