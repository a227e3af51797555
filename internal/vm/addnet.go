package vm

import (
	"context"
	"errors"
	"fmt"

	"minimega/internal/network"
)

// AddNets plugs network interfaces into the VMs of a target, one after the
// other. Those before one that fails stay.
func (m *Manager) AddNets(ctx context.Context, namespace, target string, nets []NetConfig) error {
	return m.eachMachine(ctx, namespace, target, "add network", func(ctx context.Context, v *VM, machine Machine) error {
		adder, ok := machine.(NetAdder)
		if !ok {
			return NotSupported(v.Type, "add network")
		}
		for _, n := range nets {
			if err := v.addNet(ctx, adder, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// addNet makes a port, plugs it in, and writes it down. The caller has the turn.
func (v *VM) addNet(ctx context.Context, adder NetAdder, n NetConfig) error {
	if n.MAC == "" {
		n.MAC = newMAC()
	}
	owner := fmt.Sprintf("vm %s:%d", v.Name, len(v.Config().Networks))
	ports, err := v.manager.opts.Network.Create(ctx, []network.PortSpec{{Kind: network.Tap, Bridge: n.Bridge, VLAN: n.VLAN,
		Namespace: v.Namespace, Owner: owner, MAC: n.MAC}})
	if err != nil {
		return err
	}
	n.Tap = ports[0].Name
	if err := adder.AddNet(ctx, n); err != nil {
		return errors.Join(err, v.manager.opts.Network.Delete(context.WithoutCancel(ctx), n.Tap))
	}
	v.edit(func(c *Config) { c.Networks = append(c.Networks, n) })
	return nil
}
