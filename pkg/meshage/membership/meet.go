package membership

import "time"

// seen notes a beacon of a node that is no member. Who needs links dials it
// soon; the others leave it some time, and of a large mesh only few are to dial
// it, after a wait by chance.
func (m *Machine) seen(e Seen) {
	s := &m.seek
	if e.ID == m.cfg.Self || e.ID == "" || len(e.ID) > MaxID || checkAddrs(e.Addrs) != nil || m.links[e.ID] != nil {
		return
	}
	if n := m.table.nodes[keyOf(e.ID)]; n != nil && n.member {
		return
	}
	g, ok := s.seen.get(e.ID)
	if !ok {
		if s.seen.size() >= m.cfg.Members {
			return
		}
		wait := time.Duration(len(m.table.reached)+s.seen.size()) * time.Second / healPerSecond
		g = &sighting{first: m.now, meet: m.now + 300*time.Millisecond + m.between(0, wait)}
		s.seen.put(e.ID, g)
	}
	g.addrs, g.seeking, g.at = append([]string(nil), e.Addrs...), e.Seeking, m.now
	sooner(&s.at, min(g.meet, m.now+m.between(20*time.Millisecond, 80*time.Millisecond)))
}

// meetStrangers dials those seen whom nobody has brought into this part of the
// mesh, whatever the number of links. A node that seeks none answers only those
// who seek.
func (m *Machine) meetStrangers() {
	s := &m.seek
	for i, g := range s.seen.items {
		if m.cfg.Degree == DegreeNone && !g.seeking {
			continue
		}
		switch id := s.seen.ids[i]; {
		case m.now < g.meet:
			sooner(&s.at, g.meet)
		case m.free(id) && s.dials.size() < 2:
			m.dial(id, g.addrs)
		}
	}
}

// found is called with a node that has become a member.
func (s *seeker) found(n *node) {
	s.seen.remove(n.id)
	s.gone.remove(n.id)
}

// missing is called with a node that has left. Unless it said so, it may be
// alive behind a broken link, and is called now and then.
func (s *seeker) missing(m *Machine, n *node) {
	if n.gone || n.context != m.cfg.Context || s.gone.size() >= m.cfg.Members {
		return
	}
	s.gone.put(n.id, &ghost{addrs: n.addrs, left: m.now})
	s.split = m.now
	sooner(&s.healAt, m.now+m.healPause())
}

// healPause is the time to the next call to a lost member. All nodes of this
// part together make healPerSecond calls while the loss is fresh, later one.
func (m *Machine) healPause() time.Duration {
	rate := float64(healPerSecond)
	if m.now-m.seek.split > healFirst {
		rate = 1
	}
	mean := float64(len(m.table.reached)) / rate * float64(time.Second)
	return max(time.Duration(m.rand.ExpFloat64()*mean), 50*time.Millisecond)
}

// heal calls one of the lost members.
func (m *Machine) heal() {
	s := &m.seek
	if s.gone.size() == 0 {
		s.healAt = never
		return
	}
	if m.now < s.healAt {
		sooner(&s.at, s.healAt)
		return
	}
	s.healAt = m.now + m.healPause()
	sooner(&s.at, s.healAt)
	for range min(s.gone.size(), 8) {
		i := m.rand.IntN(s.gone.size())
		if id := s.gone.ids[i]; m.free(id) {
			m.dial(id, s.gone.items[i].addrs)
			return
		}
	}
}

// beacon makes the node known on the local network: often while it needs links,
// now and then when it has them, more rarely in a large mesh.
func (m *Machine) beacon() {
	s := &m.seek
	if m.cfg.Degree == DegreeNone {
		s.beaconAt, s.step = m.now, 0
		return
	}
	if m.now < s.beaconAt {
		sooner(&s.at, s.beaconAt)
		return
	}
	seeking := len(m.order) < m.target() || len(m.order) == 0
	pause := max(10*time.Second, time.Duration(len(m.table.reached))*100*time.Millisecond)
	if seeking {
		pause = min(pause, 200*time.Millisecond<<min(s.step, 5))
	}
	s.step++
	s.beaconAt = m.now + m.between(pause*3/4, pause*5/4)
	sooner(&s.at, s.beaconAt)
	m.do(Beacon{Seeking: seeking})
}
