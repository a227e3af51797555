package vm

import (
	"context"
	"errors"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// AddNets plugs network interfaces into the VMs of a target, one after the
// other. Those before one that fails stay.
func (m *Manager) AddNets(ctx context.Context, namespace, target string, nets []NetConfig) error {
	return m.eachMachine(ctx, namespace, target, "add network", func(ctx context.Context, v *VM, machine Machine) error {
		var add func(NetConfig) error
		switch m := machine.(type) {
		case NetAdder:
			add = func(n NetConfig) error { return v.addNet(ctx, m, n) }
		case Spaced:
			add = func(n NetConfig) error { return v.addCable(ctx, m, n) }
		default:
			return NotSupported(v.Type, "add network")
		}
		for _, n := range nets {
			if err := add(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// addNet makes a port, plugs it in, and writes it down. The record names it
// before the machine has anything of it, see settleNet. The caller has the turn.
func (v *VM) addNet(ctx context.Context, adder NetAdder, n NetConfig) error {
	if n.MAC == "" {
		n.MAC = newMAC()
	}
	ports, err := v.manager.opts.Network.Create(ctx, []network.PortSpec{v.portSpec(len(v.Config().Networks), n)})
	if err != nil {
		return err
	}
	n.Tap = ports[0].Name
	v.mu.Lock()
	v.adding = &n
	v.mu.Unlock()
	if err = v.writeRecord(); err == nil {
		err = adder.AddNet(ctx, n)
	}
	if err != nil {
		return errors.Join(err, v.dropNet(context.WithoutCancel(ctx)))
	}
	v.edit(func(c *Config) {
		c.Networks = append(c.Networks, n)
		v.adding = nil // in the same record: there is none that has neither
	})
	return nil
}

// settleNet finds out whether the interface that an earlier daemon was plugging
// in when it died is one of the machine's, which c then says, and else removes
// what there is of it.
func (v *VM) settleNet(ctx context.Context, machine Machine, c *Config) error {
	v.mu.Lock()
	n := v.adding
	v.mu.Unlock()
	adder, ok := machine.(NetAdder)
	if n == nil || !ok {
		return nil
	}
	plugged, err := adder.SettleNet(ctx, *n)
	if err != nil {
		return err
	}
	if !plugged {
		return v.dropNet(ctx)
	}
	c.Networks = append(c.Networks, *n)
	return nil
}

// dropNet removes the port of an interface that no machine has in the end.
func (v *VM) dropNet(ctx context.Context) error {
	v.mu.Lock()
	n := v.adding
	v.adding = nil
	v.mu.Unlock()
	if n == nil {
		return nil
	}
	v.writeConfig()
	err := v.manager.opts.Network.Delete(ctx, n.Tap)
	if errors.Is(err, errs.NotFound) {
		return nil // an earlier daemon's, and not taken over: it goes with what nobody claims
	}
	return err
}
