package vm

import (
	"context"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// Renumbered returns interfaces of VMs of a namespace with their VLANs' new
// numbers, and whether there was one to change. Interfaces on a VLAN that was
// named by number stay on it.
func Renumbered(namespace string, nets []NetConfig, moves []network.Renumbering) ([]NetConfig, bool) {
	changed := false
	nets = slices.Clone(nets)
	for i := range nets {
		n := &nets[i]
		for _, r := range moves { // in their order: one may follow from another
			if n.Alias != "" && n.VLAN == r.Old && fullAlias(namespace, n.Alias) == r.Alias {
				n.VLAN, changed = r.New, true
			}
		}
	}
	return nets, changed
}

func fullAlias(namespace, alias string) string {
	if strings.Contains(alias, "//") {
		return alias
	}
	return namespace + "//" + alias
}

// Renumber connects the interfaces of all VMs that were put on a VLAN by its
// alias to the number that this has now, and writes that down. VMs that are
// being launched are waited for. It goes on after a failure.
func (m *Manager) Renumber(ctx context.Context, moves []network.Renumbering) error {
	return each(ctx, m.List(""), func(ctx context.Context, v *VM) error {
		if err := v.take(ctx); err != nil {
			return err
		}
		defer v.give()
		return errs.AtStep(v.renumber(ctx, moves), "renumber VLAN")
	})
}

// renumber moves the wires of a VM, of which the caller has the turn.
func (v *VM) renumber(ctx context.Context, moves []network.Renumbering) error {
	was := v.Config().Networks
	is, changed := Renumbered(v.Namespace, was, moves)
	if !changed {
		return nil
	}
	for i, n := range is {
		if n.VLAN == was[i].VLAN || n.Tap == "" {
			continue
		}
		if err := v.manager.opts.Network.Connect(ctx, n.Tap, n.Bridge, n.VLAN); err != nil {
			return err
		}
	}
	v.edit(func(c *Config) { c.Networks = is })
	return nil
}
