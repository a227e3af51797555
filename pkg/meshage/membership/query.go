package membership

import (
	"cmp"
	"slices"
	"time"
)

// Members lists who can be reached, this node included, nearest first.
func (m *Machine) Members() []Member {
	list := make([]Member, len(m.table.reached))
	for i, n := range m.table.reached {
		list[i] = m.describe(n)
	}
	return list
}

// Member tells of one node, with ok false when it cannot be reached.
func (m *Machine) Member(id ID) (member Member, ok bool) {
	n := m.member(id)
	if n == nil {
		return Member{}, false
	}
	return m.describe(n), true
}

func (m *Machine) member(id ID) *node {
	n := m.table.nodes[keyOf(id)]
	if n == nil || n.id != id || !m.table.inReach(n) {
		return nil
	}
	return n
}

// Lookup lists all members of a name, nearest first. More than one means that
// the name is ambiguous.
func (m *Machine) Lookup(name string) []Member {
	var list []Member
	for _, n := range m.table.reached {
		if n.name == name {
			list = append(list, m.describe(n))
		}
	}
	return list
}

// Known reports whether a node of this name was a member not longer than about
// Config.MSA ago, and is none now.
func (m *Machine) Known(name string) bool {
	for _, n := range m.table.lost {
		if n.name == name && n.was {
			return len(m.Lookup(name)) == 0
		}
	}
	return false
}

// NextHop returns the neighbour to whom messages for id are to be given: id
// itself when there is a link.
func (m *Machine) NextHop(id ID) (via ID, ok bool) {
	if l := m.links[id]; l != nil && l.ready {
		return id, true
	}
	n := m.member(id)
	if n == nil || n.via == nil {
		return "", false
	}
	return n.via.id, true
}

// Path lists the nodes on the way to id, from the first neighbour to id.
func (m *Machine) Path(id ID) []ID {
	var path []ID
	for n := m.member(id); n != nil && n.prev != nil; n = n.prev {
		path = append(path, n.id)
	}
	slices.Reverse(path)
	return path
}

// Links lists the nodes to which this one has a link that is in use.
func (m *Machine) Links() []ID {
	var list []ID
	for _, l := range m.order {
		if l.ready {
			list = append(list, l.id)
		}
	}
	slices.Sort(list)
	return list
}

// Neighbours lists the members to whom id has links that both ends declare.
func (m *Machine) Neighbours(id ID) []ID {
	n := m.member(id)
	if n == nil {
		return nil
	}
	list := make([]ID, len(n.adjacent))
	for i, p := range n.adjacent {
		list[i] = p.id
	}
	slices.SortFunc(list, cmp.Compare[ID])
	return list
}

// Size counts the members, this node included.
func (m *Machine) Size() int { return len(m.table.reached) }

// Degree returns the degree last set.
func (m *Machine) Degree() int { return m.cfg.Degree }

// Target returns how many links the node seeks now: what Degree means for a
// mesh of this size.
func (m *Machine) Target() int { return m.target() }

// Stats counts what a machine has done since it was made.
type Stats struct {
	Records     int       // kept now, this node's included
	Received    uint64    // records that were new
	Repeated    uint64    // records that were known already
	Refused     uint64    // records beyond Config.Members
	Suspected   uint64    // links dropped because they were silent
	Trimmed     uint64    // links ended because there were too many
	Faults      uint64    // links dropped because the other end broke the protocol
	Published   uint64    // versions of this node's own record
	LateTicks   uint64    // ticks that came too late: the process was starved
	Searches    uint64    // of the graph
	LastChanged time.Time // when members or routes last changed
}

// Stats returns the counters.
func (m *Machine) Stats() Stats {
	s := m.stats
	s.Records = m.table.records
	return s
}
