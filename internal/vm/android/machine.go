package android

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/qmp"
	"minimega/internal/vm"
)

// Machine is an emulator process.
type Machine struct {
	dir     string
	proc    *host.Proc
	console *console

	done   chan struct{}
	closed chan struct{} // Close was called
	close  sync.Once
	wg     sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	killed bool
	err    error
}

var (
	_ vm.Machine  = (*Machine)(nil)
	_ vm.Emulator = (*Machine)(nil)
	_ vm.Stater   = (*Machine)(nil)
)

// How long an emulator may take to end by itself, and by force.
const (
	quitTime  = 5 * time.Second
	forceTime = 5 * time.Second
)

func newMachine(l *launch) *Machine {
	m := &Machine{
		dir: l.spec.Dir, proc: l.proc, console: l.console,
		done: make(chan struct{}), closed: make(chan struct{}),
	}
	m.wg.Go(m.watch)
	return m
}

// watch notes the end of the process.
func (m *Machine) watch() {
	select {
	case <-m.proc.Done():
	case <-m.closed:
		return
	}
	m.mu.Lock()
	if status := m.proc.Status(); !m.killed && !status.OK() {
		m.err = endError(status, filepath.Join(m.dir, logName))
	}
	m.mu.Unlock()
	close(m.done)
}

// Pid returns the emulator's process id.
func (m *Machine) Pid() int { return m.proc.Pid() }

// Ports returns the TCP ports of the console and of adb, on the loopback
// interface.
func (m *Machine) Ports() (console, adb int) { return m.console.port, m.console.port + 1 }

// Done is closed when the emulator has ended and been waited for.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err tells why the emulator ended, see vm.Machine.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// Start lets the device run.
func (m *Machine) Start(ctx context.Context) error { return m.avd(ctx, "start") }

// Stop pauses the device.
func (m *Machine) Stop(ctx context.Context) error { return m.avd(ctx, "stop") }

func (m *Machine) avd(ctx context.Context, verb string) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.late(m.console.avd(ctx, verb))
}

// Status asks the emulator whether the device runs. One that does not has
// never been started, or is paused, which only its QEMU knows.
func (m *Machine) Status(ctx context.Context) (vm.State, error) {
	if err := m.alive(); err != nil {
		return 0, err
	}
	running, err := m.console.running(ctx)
	switch {
	case err != nil:
		return 0, m.late(err)
	case running:
		return vm.Running, nil
	}
	started, err := m.started(ctx)
	if err != nil || started {
		return vm.Paused, m.late(err)
	}
	return vm.Building, nil
}

// started asks the QEMU of a device that does not run.
func (m *Machine) started(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	c, err := qmp.Dial(ctx, filepath.Join(m.dir, "qmp"))
	if err != nil {
		return false, err
	}
	var s struct {
		Status string `json:"status"`
	}
	err = c.Execute(ctx, "query-status", nil, &s)
	return s.Status != "prelaunch", errors.Join(err, c.Close())
}

// alive fails when there is no process to talk to.
func (m *Machine) alive() error {
	select {
	case <-m.proc.Done():
		return errs.New(errs.State, "the emulator has ended")
	default:
		return nil
	}
}

// late words the failure of a call during which the process ended.
func (m *Machine) late(err error) error {
	if err == nil {
		return nil
	}
	if m.alive() != nil {
		return errs.New(errs.State, "the emulator has ended: %w", err)
	}
	var no *refusal
	if errors.As(err, &no) {
		return errs.Wrap(errs.State, err)
	}
	return err
}

// Kill asks the emulator to end, so that it closes its images, and makes it
// end if it does not.
func (m *Machine) Kill(ctx context.Context) error {
	select {
	case <-m.done:
		return errs.New(errs.State, "the emulator has ended")
	default:
	}
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if m.quit(ctx) {
		return nil
	}
	return m.proc.KillWithin(forceTime, m.done, m.closed)
}

// quit reports whether the emulator ended by itself in time.
func (m *Machine) quit(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, quitTime)
	defer cancel()
	// It may end before it answers: what counts is whether it ends. If it
	// cannot even be asked, there is nothing to wait for.
	if _, err := m.console.run(ctx, "kill"); err != nil && m.alive() == nil {
		return false
	}
	select {
	case <-m.done:
		return true
	case <-ctx.Done():
	case <-m.closed:
	}
	return false
}

// Close lets go of the process without ending it.
func (m *Machine) Close() error {
	var err error
	m.close.Do(func() {
		close(m.closed)
		m.wg.Wait()
		err = m.proc.Close()
	})
	return err
}
