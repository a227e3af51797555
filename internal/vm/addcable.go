package vm

import (
	"context"
	"errors"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// addCable makes a port whose other end comes into being with it where the
// machine lives, and writes it down, or leaves nothing. A daemon that dies
// before it is written down leaves a port that nobody claims. The caller has
// the turn.
func (v *VM) addCable(ctx context.Context, machine Spaced, n NetConfig) error {
	if n.MAC == "" {
		n.MAC = newMAC()
	}
	space, err := machine.Space(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = space.Close() }() // nobody reads or writes it
	spec := v.portSpec(len(v.Config().Networks), n)
	spec.Space = space
	ports, err := v.manager.opts.Network.Create(ctx, []network.PortSpec{spec})
	if err != nil {
		return err
	}
	n.Tap = ports[0].Name
	if err := v.keepCable(machine, n); err != nil {
		return errors.Join(err, v.manager.opts.Network.Delete(context.WithoutCancel(ctx), n.Tap))
	}
	return nil
}

// keepCable makes the port the VM's, to go when the machine ends. One that has
// ended already, which it may at any moment, cannot have it any more.
func (v *VM) keepCable(machine Spaced, n NetConfig) error {
	v.mu.Lock()
	ended := any(v.machine) != any(machine)
	if !ended {
		c := v.config.Clone()
		c.Networks = append(c.Networks, n)
		v.config = c
	}
	v.mu.Unlock()
	if ended {
		return errs.New(errs.State, "the %s has ended meanwhile", v.Type)
	}
	v.writeConfig()
	return nil
}
