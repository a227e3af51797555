package membership

import "time"

// graphChanged makes a search due: at once when the own links changed for the
// worse, else after a moment in which more may come.
func (m *Machine) graphChanged(now bool) {
	if now {
		m.searchAt = m.now
		return
	}
	sooner(&m.searchAt, m.now+5*time.Millisecond+time.Duration(m.table.records)*100*time.Microsecond)
}

// search finds who can be reached now, and tells the difference.
func (m *Machine) search() {
	t := &m.table
	m.searchAt = never
	before := t.reached
	t.find()
	m.stats.Searches++
	changed := false
	for _, n := range before {
		if !t.inReach(n) {
			m.memberLeft(n)
			changed = true
		}
	}
	for _, n := range t.reached[1:] {
		changed = m.reached(n) || changed
	}
	if !changed {
		return
	}
	keep := t.lost[:0]
	for _, n := range t.lost {
		if !t.inReach(n) {
			keep = append(keep, n)
		}
	}
	clear(t.lost[len(keep):])
	t.lost = keep
	m.stats.LastChanged = m.time(m.now)
	m.do(RoutesChanged{})
	m.seek.hurry(m)
}

// reached compares what the search says of a node with what was announced. It
// reports whether routes or members may have changed.
func (m *Machine) reached(n *node) bool {
	changed := n.via != n.said || !n.member
	n.said = n.via
	if n.member && n.asBoot != n.boot {
		left := m.describe(n)
		left.Boot = n.asBoot
		m.do(Left{left})
		n.member, changed = false, true
	}
	if !n.member {
		n.member, n.was, n.again, n.asBoot, n.joined = true, true, false, n.boot, m.now
		m.seek.found(n)
		m.do(Joined{m.describe(n)})
	}
	return changed
}

func (m *Machine) memberLeft(n *node) {
	n.member, n.lost, n.said = false, m.now, nil
	if n.version == 0 {
		return
	}
	m.table.lost = append(m.table.lost, n)
	m.do(Left{m.describe(n)})
	m.seek.missing(m, n)
}

// describe makes a copy of what is known of a node for others to keep.
func (m *Machine) describe(n *node) Member {
	d := Member{ID: n.id, Name: n.name, Context: n.context, Boot: n.boot, Version: n.version,
		Addrs: append([]string(nil), n.addrs...), Joined: m.time(n.joined), Hops: n.hops, Links: len(n.declared)}
	if n.via != nil {
		d.Via = n.via.id
	}
	return d
}
