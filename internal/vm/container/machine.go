package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/container/cgroup"
)

// Machine is a running container.
type Machine struct {
	spec    *vm.Spec
	keeper  *keeper
	init    *process
	group   *cgroup.Group
	console *console
	cc      *backchannel // nil without one
	start   *os.File     // eventfd; nil once started
	told    bool         // init has been told to start
	program string       // that init executes first, "" for an adopted one
	report  *os.File     // tells of the start; nil once started, and for an adopted one

	done   chan struct{}
	closed chan struct{} // Close was called
	close  sync.Once
	wg     sync.WaitGroup
	turn   chan struct{} // one change of start and pause at a time

	mu     sync.Mutex // guards the fields below
	killed bool
	frozen bool // maybe
	err    error
}

var (
	_ vm.Engine   = (*Engine)(nil)
	_ vm.Machine  = (*Machine)(nil)
	_ vm.Consoler = (*Machine)(nil)
	_ vm.Stater   = (*Machine)(nil)
	_ vm.Spaced   = (*Machine)(nil)
)

const forceTime = 10 * time.Second

// startTime is how long init may take to be executed. Tests make it shorter.
var startTime = 10 * time.Second

func newMachine(l *launch) *Machine {
	m := &Machine{spec: l.spec, keeper: l.keeper, init: l.init, group: l.group, console: l.console, cc: l.cc, start: l.start, report: l.report,
		done: make(chan struct{}), closed: make(chan struct{}), turn: make(chan struct{}, 1)}
	if l.plan != nil {
		m.program = l.plan.Args[0]
	}
	m.keeper.then(func() { m.wg.Go(m.finish) })
	return m
}

// finish lets go of everything when the container has ended.
func (m *Machine) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), forceTime)
	defer cancel()
	var failed []error
	if _, known := status(m.spec.Dir); !known { // the keeper was ended, and not init
		failed = append(failed, m.init.kill(), m.group.Kill(ctx))
	}
	failed = append(failed, m.group.Remove(ctx), m.console.Close(), m.cc.Close(true))
	if err := errors.Join(failed...); err != nil {
		m.spec.Log.Warn("removing what a container left", "vm", m.spec.Name, "err", err)
	}
	m.mu.Lock()
	m.err = m.verdict()
	m.mu.Unlock()
	close(m.done)
}

// verdict tells why the container ended. Its init may end as it likes; being
// killed is what nobody asks for.
func (m *Machine) verdict() error {
	if m.killed {
		return nil
	}
	if m.err != nil {
		return m.err
	}
	return verdict(m.spec.Dir)
}

// status reads what the keeper wrote: how init ended, as wait(2) tells it.
func status(dir string) (ws unix.WaitStatus, known bool) {
	text, err := os.ReadFile(filepath.Join(dir, statusName))
	if err != nil || len(text) != 4 {
		return 0, false
	}
	return unix.WaitStatus(binary.NativeEndian.Uint32(text)), true
}

// verdict tells what the end of init says of the container's.
func verdict(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, killedName)); err == nil {
		return nil
	}
	ws, known := status(dir)
	if !known {
		return errs.New(errs.State, "its keeper was ended")
	}
	if ws.Signaled() {
		return errs.New(errs.State, "init was killed by signal %d (%v)", int(ws.Signal()), ws.Signal())
	}
	return nil
}

// Pid returns the process id of init on the host.
func (m *Machine) Pid() int { return m.init.pid }

// Done is closed when the container has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err tells why it ended, see vm.Machine.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// ConsolePort is the TCP port of the console.
func (m *Machine) ConsolePort() int { return m.console.port() }

// take waits for the right to change the state; give passes it on.
func (m *Machine) take(ctx context.Context) error {
	select {
	case <-m.done:
		return errs.New(errs.State, "the container has ended")
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Machine) give() { <-m.turn }

// Start executes init, or lets all processes go on.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	if m.start == nil {
		return m.late(m.group.Thaw(ctx))
	}
	if !m.told {
		if _, err := m.start.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			return fmt.Errorf("start init: %w", err)
		}
		m.told = true
	}
	err := m.executed(ctx)
	if err != nil {
		return err
	}
	err = m.start.Close()
	m.start = nil
	return err
}

// executed waits until init runs. Who has waited in vain may wait again.
func (m *Machine) executed(ctx context.Context) error {
	if m.report == nil {
		return m.replaced(ctx)
	}
	if err := m.report.SetReadDeadline(time.Now().Add(startTime)); err != nil {
		return err
	}
	expired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { defer close(expired); _ = m.report.SetReadDeadline(time.Now()) })
	_, value, err := readRecord(m.report)
	if !stop() {
		<-expired // so that it does not end a later wait
	}
	switch {
	case errors.Is(err, io.EOF): // closed by the execution
		err = m.report.Close()
		m.report = nil
		return err
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errs.New(errs.State, "init was not executed within %v, the host may be too busy: try `vm start` again", startTime)
	case err == nil: // nothing but the execution can fail now
		err = initFailure(m.program, unix.Errno(-value))
	}
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	return err
}

// replaced waits until an adopted container, which has nobody to report to, is
// another program than ours: frozen before that it would count as not started.
func (m *Machine) replaced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if waits, err := m.waits(); !waits || err != nil {
			return nil // how it ended, if it did, is in its status
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.State, "init was not executed: %w", ctx.Err())
		case <-m.keeper.done:
			return nil
		case <-time.After(time.Millisecond):
		}
	}
}

// waits reports whether the first process is still our own program, that of the
// keeper: anybody can have one of its name.
func (m *Machine) waits() (bool, error) {
	init, err := os.Stat(fmt.Sprintf("/proc/%d/exe", m.init.pid))
	if err != nil {
		return false, err
	}
	keeper, err := os.Stat(fmt.Sprintf("/proc/%d/exe", m.keeper.pid))
	return err == nil && os.SameFile(init, keeper), err
}

// Stop freezes all processes.
func (m *Machine) Stop(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	m.mu.Lock()
	m.frozen = true
	m.mu.Unlock()
	return m.late(m.group.Freeze(ctx))
}

// late words the failure of a call during which the container ended.
func (m *Machine) late(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-m.keeper.done:
		return errs.New(errs.State, "the container has ended: %w", err)
	default:
		return err
	}
}

// Status tells whether init runs, waits or is frozen.
func (m *Machine) Status(context.Context) (vm.State, error) {
	waits, err := m.waits()
	if err != nil {
		return 0, err
	}
	if waits {
		return vm.Building, nil
	}
	frozen, err := m.group.Frozen()
	if err != nil {
		return 0, err
	}
	if frozen {
		return vm.Paused, nil
	}
	return vm.Running, nil
}

// Kill ends all processes of the container.
func (m *Machine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.killed = true
	frozen := m.frozen
	m.mu.Unlock()
	// For the next daemon, should this one not see the end.
	if err := os.WriteFile(filepath.Join(m.spec.Dir, killedName), nil, 0o600); err != nil {
		m.spec.Log.Warn("a container that is killed may be said to have ended by itself", "vm", m.spec.Name, "err", err)
	}
	err := m.init.kill()
	if err == nil && frozen {
		err = m.thaw(ctx) // frozen processes of version 1 do not end
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, forceTime)
	defer cancel()
	select {
	case <-m.done:
		return nil
	case <-m.closed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end of process %d: %w", m.Pid(), ctx.Err())
	}
}

// thaw lets frozen processes go, if the group is still there.
func (m *Machine) thaw(ctx context.Context) error {
	frozen, err := m.group.Frozen()
	if err == nil && frozen {
		err = m.group.Thaw(ctx)
	}
	select {
	case <-m.keeper.done:
		return nil // ended meanwhile, and the group with it
	default:
		return err
	}
}

// Close lets go of the container without ending it.
func (m *Machine) Close() error {
	var err error
	m.close.Do(func() {
		close(m.closed)
		err = m.keeper.close() // nothing begins to finish from here on
		m.wg.Wait()
		m.turn <- struct{}{} // nobody starts it any more
		err = errors.Join(err, m.console.Close(), m.cc.Close(false), m.init.close())
		if m.start != nil {
			err = errors.Join(err, m.start.Close())
		}
		if m.report != nil {
			err = errors.Join(err, m.report.Close())
		}
	})
	return err
}
