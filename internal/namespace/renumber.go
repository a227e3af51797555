package namespace

import (
	"minimega/internal/network"
	"minimega/internal/vm"
)

// Renumber gives configurations, the present ones, those stored and those that
// wait to be launched, the new numbers of VLANs.
func (r *Registry) Renumber(moves []network.Renumbering) {
	r.mu.Lock()
	spaces := make([]*Namespace, 0, len(r.spaces))
	for _, ns := range r.spaces {
		spaces = append(spaces, ns)
	}
	r.mu.Unlock()
	for _, ns := range spaces {
		if ns.renumber(moves) {
			ns.keep()
		}
	}
}

// renumber reports whether a stored configuration has changed.
func (n *Namespace) renumber(moves []network.Renumbering) (stored bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config, _ = renumbered(n.Name, n.config, moves)
	for name, c := range n.saved {
		var changed bool
		n.saved[name], changed = renumbered(n.Name, c, moves)
		stored = stored || changed
	}
	for _, g := range n.queue {
		g.Config, _ = renumbered(n.Name, g.Config, moves)
	}
	return stored
}

// renumbered returns c itself, or an edited copy.
func renumbered(namespace string, c *vm.Config, moves []network.Renumbering) (*vm.Config, bool) {
	nets, changed := vm.Renumbered(namespace, c.Networks, moves)
	if changed {
		c = c.Clone()
		c.Networks = nets
	}
	return c, changed
}
