// Package vmtest has an engine whose machines are values in memory, for tests
// and benchmarks of what is above the engines, and the suite that every engine
// must pass.
package vmtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// Engine makes machines without processes. The zero value is ready.
type Engine struct {
	// Fail, if set, is asked before each launch for an error.
	Fail func(*vm.Spec) error
	// Refuse, if set, is asked by Check.
	Refuse func(*vm.Config) error

	pids atomic.Int64

	mu       sync.Mutex // guards machines
	machines map[string]*Machine
}

// Type returns vm.KVM: the fake stands for the most common kind.
func (e *Engine) Type() vm.Type { return vm.KVM }

// Check asks Refuse.
func (e *Engine) Check(_ context.Context, c *vm.Config) error {
	if e.Refuse == nil {
		return nil
	}
	return e.Refuse(c)
}

// Launch makes a paused machine, unless Fail has an error.
func (e *Engine) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if e.Fail != nil {
		if err := e.Fail(s); err != nil {
			return nil, err
		}
	}
	m := &Machine{pid: int(e.pids.Add(1)) + 1<<22, done: make(chan struct{})} // above any real pid
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.machines == nil {
		e.machines = map[string]*Machine{}
	}
	e.machines[s.Name] = m
	return m, nil
}

// Machine returns the last machine launched under a name, or nil.
func (e *Engine) Machine(name string) *Machine {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.machines[name]
}

// Machine is a machine in memory.
type Machine struct {
	pid  int
	done chan struct{}

	mu      sync.Mutex // guards the fields below
	running bool
	started bool
	ended   bool
	err     error
	closed  int
}

var errEnded = errs.New(errs.State, "the machine has ended")

// Pid returns a number that no process has.
func (m *Machine) Pid() int { return m.pid }

// Start makes it run.
func (m *Machine) Start(context.Context) error { return m.set(true) }

// Stop pauses it.
func (m *Machine) Stop(context.Context) error { return m.set(false) }

func (m *Machine) set(running bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return errEnded
	}
	m.running, m.started = running, true
	return nil
}

// Status tells its state.
func (m *Machine) Status(context.Context) (vm.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ended:
		return 0, errEnded
	case m.running:
		return vm.Running, nil
	case m.started:
		return vm.Paused, nil
	}
	return vm.Building, nil
}

// Running reports whether it runs.
func (m *Machine) Running() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.running && !m.ended }

// Kill ends it.
func (m *Machine) Kill(context.Context) error { return m.End(nil) }

// End makes it end as if by itself, for the reason given.
func (m *Machine) End(why error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return errEnded
	}
	m.ended, m.err = true, why
	close(m.done)
	return nil
}

// Done is closed when it has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err tells why it ended.
func (m *Machine) Err() error { m.mu.Lock(); defer m.mu.Unlock(); return m.err }

// Close counts how often it was called.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed++; m.closed > 1 {
		return errors.New("closed twice")
	}
	return nil
}
