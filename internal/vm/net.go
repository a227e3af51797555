package vm

import (
	"context"

	"minimega/internal/errs"
)

// ConnectNet moves an interface of the VMs that a target names to a VLAN. An
// empty bridge means the one it is on, or the default one.
func (m *Manager) ConnectNet(ctx context.Context, namespace, target string, index, vlan int, alias, bridge string) error {
	return m.eachTarget(ctx, namespace, target, "connect network", made, func(v *VM, ctx context.Context) error {
		return v.moveNet(ctx, index, func(n *NetConfig) error {
			b := bridge
			if b == "" {
				b = n.Bridge
			}
			if b == "" {
				b = DefaultBridge
			}
			if n.Tap != "" { // a container that has ended has none: it is for the next start
				if err := m.opts.Network.Connect(ctx, n.Tap, b, vlan); err != nil {
					return err
				}
			}
			n.Bridge, n.VLAN, n.Alias = b, vlan, alias
			return nil
		})
	})
}

// DisconnectNet takes an interface of the VMs that a target names off its VLAN.
func (m *Manager) DisconnectNet(ctx context.Context, namespace, target string, index int) error {
	return m.eachTarget(ctx, namespace, target, "disconnect network", made, func(v *VM, ctx context.Context) error {
		return v.moveNet(ctx, index, func(n *NetConfig) error {
			if n.Tap != "" {
				if err := m.opts.Network.Disconnect(ctx, n.Tap); err != nil {
					return err
				}
			}
			n.Bridge, n.VLAN, n.Alias = "", Disconnected, ""
			return nil
		})
	})
}

// made tells VMs that have their taps: all but those whose launch failed.
func made(v *VM, _ bool) bool { return v.relaunched() }

// moveNet changes one interface: first the wire, then what is known of it.
func (v *VM) moveNet(ctx context.Context, index int, move func(*NetConfig) error) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	nets := v.Config().Networks
	if index < 0 || index >= len(nets) {
		return errs.New(errs.NotFound, "no network %d, VM only has %d networks", index, len(nets))
	}
	n := nets[index]
	if err := move(&n); err != nil {
		return err
	}
	n.Raw = n.String()
	v.edit(func(c *Config) { c.Networks[index] = n })
	return nil
}

// Interface returns the port behind an interface of a VM and where it is connected.
func (v *VM) Interface(index int) (NetConfig, error) {
	nets := v.Config().Networks
	if index < 0 || index >= len(nets) {
		return NetConfig{}, errs.InVM(errs.New(errs.NotFound, "no network %d, VM only has %d networks", index, len(nets)), v.Name)
	}
	if nets[index].Tap == "" {
		return NetConfig{}, errs.InVM(errs.New(errs.State, "its network %d does not exist (the VM is %s)", index, v.State()), v.Name)
	}
	return nets[index], nil
}
