package vm

import (
	"context"
	"errors"
	"os"

	"minimega/internal/errs"
)

// Start runs the VMs that a target names: those built or paused; one that is
// named, also when it has quit or failed, which launches it again.
func (m *Manager) Start(ctx context.Context, namespace, target string) error {
	return m.eachTarget(ctx, namespace, target, "start", func(v *VM, wild bool) bool {
		s := v.State()
		return s&(Building|Paused) != 0 || !wild && s&(Quit|Error|Running) != 0
	}, (*VM).start)
}

// Stop pauses the running VMs that a target names.
func (m *Manager) Stop(ctx context.Context, namespace, target string) error {
	return m.eachTarget(ctx, namespace, target, "stop", inState(Running), (*VM).stop)
}

// Kill ends the VMs that a target names and returns when their processes are gone.
func (m *Manager) Kill(ctx context.Context, namespace, target string) error {
	return m.eachTarget(ctx, namespace, target, "kill", inState(Building|Running|Paused), func(v *VM, ctx context.Context) error { return v.kill(ctx) })
}

// Flush forgets the VMs of a target that have quit or failed, with their taps
// and instance directories.
func (m *Manager) Flush(ctx context.Context, namespace, target string) error {
	vms, err := m.targets(namespace, target, inState(Quit|Error))
	return errs.Join(err, m.flush(ctx, vms))
}

func inState(s State) func(*VM, bool) bool {
	return func(v *VM, _ bool) bool { return v.State()&s != 0 }
}

func (v *VM) start(ctx context.Context) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	switch v.State() {
	case Running:
		return errs.New(errs.State, "vm is already running")
	case Quit, Error:
		if err := v.relaunch(ctx); err != nil {
			return err
		}
	}
	m, err := v.Machine()
	if err != nil {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return err
	}
	v.setStateIfAlive(Running)
	return nil
}

// relaunch makes a new machine for a VM whose last one ended. The caller has the turn.
func (v *VM) relaunch(ctx context.Context) error {
	if err := v.manager.check(ctx, v.Type, v.Config()); err != nil {
		return err
	}
	if err := v.manager.freeFor(v); err != nil {
		return err
	}
	if v.Tag("error") != "" {
		v.ClearTag("error")
	}
	if err := v.makeMachine(ctx); err != nil {
		v.fail(err)
		return err
	}
	v.setState(Building)
	return nil
}

// freeFor refuses when others took the disks of v since it ended.
func (m *Manager) freeFor(v *VM) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.takenLocked().conflict(v.Config())
}

// setStateIfAlive sets the state unless the process ended meanwhile, which the
// watcher then says.
func (v *VM) setStateIfAlive(s State) {
	v.mu.Lock()
	alive := v.machine != nil && v.state.Alive()
	if alive {
		v.state = s
	}
	v.mu.Unlock()
	if alive {
		v.writeFile("state", s.String())
	}
}

func (v *VM) stop(ctx context.Context) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	m, err := v.Machine()
	if err != nil {
		return err
	}
	if err := m.Stop(ctx); err != nil {
		return err
	}
	v.setStateIfAlive(Paused)
	return nil
}

func (v *VM) kill(ctx context.Context) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	v.mu.Lock()
	m, ended := v.machine, v.ended
	v.mu.Unlock()
	if ended == nil {
		return nil // never had a process
	}
	if m != nil {
		if err := m.Kill(ctx); err != nil && !errors.Is(err, errs.State) {
			return err
		}
	}
	<-ended // the watcher has written down how it ended
	return nil
}

// flush forgets VMs that have no process: taps in one batch, then directories
// side by side, then the names.
func (m *Manager) flush(ctx context.Context, vms []*VM) error {
	var gone []*VM
	var taps []string
	var failed []error
	for _, v := range vms {
		if err := v.take(ctx); err != nil {
			return err
		}
		defer v.give()
		if v.State().Alive() {
			continue // started again while this waited
		}
		gone = append(gone, v)
		taps = append(taps, v.tapNames()...)
		if m.opts.OnFlush != nil {
			failed = append(failed, errs.InVM(m.opts.OnFlush(ctx, v), v.Name))
		}
	}
	for _, v := range gone {
		failed = append(failed, errs.InVM(v.retire(), v.Name))
	}
	if len(taps) > 0 {
		if err := m.opts.Network.Delete(ctx, taps...); err != nil {
			for _, v := range gone {
				v.unretire()
			}
			return err
		}
	}
	failed = append(failed, each(ctx, gone, func(_ context.Context, v *VM) error {
		if err := v.removeDir(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		m.mu.Lock()
		delete(m.vms, v.ID)
		delete(m.names, nameKey(v.Namespace, v.Name))
		m.mu.Unlock()
		return nil
	}))
	return errs.Join(failed...)
}
