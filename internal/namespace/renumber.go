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
		present, stored, queued := ns.renumber(moves)
		if present {
			ns.keepPresent()
		}
		if stored {
			ns.keep()
		}
		if queued {
			ns.rekeepQueue()
		}
	}
}

// renumber reports whether the present configuration, one that is stored, or one
// that waits has changed.
func (n *Namespace) renumber(moves []network.Renumbering) (present, stored, queued bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config, present = renumbered(n.Name, n.config, moves)
	for name, c := range n.saved {
		var changed bool
		n.saved[name], changed = renumbered(n.Name, c, moves)
		stored = stored || changed
	}
	for i, g := range n.queue {
		if c, changed := renumbered(n.Name, g.Config, moves); changed {
			again := *g
			again.Config = c
			n.queue[i], queued = &again, true
		}
	}
	return present, stored, queued
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
