package membership

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// sendSummary tells a neighbour all that this node has, so that it sends what
// is missing or newer.
func (m *Machine) sendSummary(l *link, want bool) {
	l.compare = m.now
	all := m.table.current()
	from := uint64(0)
	for {
		part := all[:min(len(all), summaryEntries)]
		all = all[len(part):]
		s := summary{want: want, from: from, to: math.MaxUint64, entries: make([]entry, len(part))}
		for i, n := range part {
			s.entries[i] = entry{n.key, n.version}
		}
		if len(all) > 0 {
			s.to = part[len(part)-1].key
		}
		m.send(l, s.encode())
		if len(all) == 0 {
			return
		}
		from = s.to + 1
	}
}

// onSummary sends what the neighbour lacks. Of what it lists all is compared;
// beyond that it gets only what can be reached, so that no two nodes wake the
// dead for each other.
func (m *Machine) onSummary(l *link, b []byte) error {
	s, err := decodeSummary(b)
	if err != nil {
		return err
	}
	if err := l.spend(m, 1+len(s.entries)/16); err != nil {
		return err
	}
	for _, e := range s.entries {
		if n := m.table.nodes[e.key]; n != nil && n.version > e.version {
			m.extra(l, n)
		}
	}
	own := m.table.current()
	i, _ := slices.BinarySearchFunc(own, s.from, byKey)
	for ; i < len(own) && own[i].key <= s.to; i++ {
		_, listed := slices.BinarySearchFunc(s.entries, own[i].key, func(e entry, key uint64) int { return cmp.Compare(e.key, key) })
		if !listed {
			m.extra(l, own[i])
		}
	}
	if s.want && s.to == math.MaxUint64 && m.now-l.compare > time.Second {
		m.sendSummary(l, false)
	}
	return nil
}

// compareDigest looks at what a neighbour says of its table. Tables that differ
// while nothing changes for a while are compared, ever more patiently.
func (m *Machine) compareDigest(l *link, digest uint64) {
	switch {
	case digest == m.table.digest:
		l.differs, l.patience = 0, quiet
	case l.differs == 0:
		l.differs = m.now
	case m.now-l.differs > l.patience && m.now-l.compare > l.patience:
		l.patience = min(2*l.patience, 30*time.Second)
		m.sendSummary(l, true)
	}
}
