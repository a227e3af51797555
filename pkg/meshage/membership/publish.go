package membership

import (
	"slices"
	"time"
)

// publisher is when and how this node's own record changes.
type publisher struct {
	version  uint64
	gone     bool
	at       time.Duration // when the next version is due
	last     time.Duration // when the last was made
	gap      time.Duration // least time between two: grows while links come and go
	foreign  int           // records of this ID by another boot, in a row
	complain time.Duration // when Conflict was last said
}

const (
	gapFirst = 100 * time.Millisecond
	gapMost  = 800 * time.Millisecond
	quiet    = 2 * time.Second // after it the gap is small again
)

// news is how much the others need to know of a change.
type news int

const (
	spare news = iota // one way more, or one less that nobody needed
	opens             // somebody new can be reached, or addresses changed
	loses             // somebody may be dead
)

// touch makes a new version of the own record due. In a large mesh more changes
// are collected for one.
func (m *Machine) touch(n news) {
	p := &m.own
	if m.now-p.last > quiet {
		p.gap = gapFirst
	}
	large := time.Duration(min(m.table.records, 1000))*200*time.Microsecond + m.relief()
	var due time.Duration
	switch n {
	case loses:
		due = max(m.now+5*time.Millisecond, p.last+gapFirst/2+large)
	case opens:
		due = max(m.now+m.between(10*time.Millisecond, 30*time.Millisecond), p.last+p.gap)
	default:
		due = max(m.now+m.between(gapFirst, 2*gapFirst)+2*large, p.last+p.gap)
	}
	sooner(&p.at, due)
}

// publish makes and spreads a new version of the own record.
func (m *Machine) publish() {
	p := &m.own
	p.version++
	p.at, p.last = never, m.now
	p.gap = min(max(2*p.gap, gapFirst), gapMost)
	self := m.table.self
	peers := make([]uint64, len(self.declared))
	for i, n := range self.declared {
		peers[i] = n.key
	}
	r := &record{key: self.key, version: p.version, boot: m.cfg.Boot, gone: p.gone, crowded: m.crowded(), id: m.cfg.Self,
		name: m.cfg.Name, context: m.cfg.Context, addrs: m.cfg.Addrs, peers: peers}
	r.seal(m.cfg.Sign)
	m.table.put(self, r, m.now)
	m.stats.Published++
	m.spread(self)
}

// declareLinks takes the links that are ready into the graph at once, and into
// the record soon. Those to a node that was started again wait for its record:
// by the old one it would join as who it was, leave, and join once more.
func (m *Machine) declareLinks(n news) {
	keys := make([]uint64, 0, len(m.order))
	for _, l := range m.order {
		if l.ready && !l.stale && len(keys) < MaxPeers {
			keys = append(keys, l.key)
		}
	}
	if m.table.declare(m.table.self, keys) {
		m.graphChanged(n == loses)
	}
	m.touch(n)
}

// heardOfSelf is called with a record of this node that it has not made, or
// made before it was started again. The others believe the highest version, so
// the node goes above it. Two nodes of one ID would outbid each other for ever:
// they do so ever more slowly, and say it.
func (m *Machine) heardOfSelf(f *record) {
	p := &m.own
	if f.version < p.version || f.version == p.version && f.boot == m.cfg.Boot || f.version >= maxVersion-1 {
		return
	}
	p.version = f.version
	if m.now-p.last > time.Minute {
		p.foreign = 0
	}
	p.foreign++
	if p.foreign <= 3 {
		sooner(&p.at, m.now)
		return
	}
	p.at = max(m.now, p.last+min(time.Second<<min(p.foreign-4, 5), 30*time.Second))
	if p.complain == 0 || m.now-p.complain > time.Minute {
		p.complain = m.now
		m.do(Conflict{Boot: f.boot})
	}
}

func (m *Machine) setAddrs(addrs []string) {
	keep := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if len(keep) < MaxAddrs && checkAddrs([]string{a}) == nil {
			keep = append(keep, a)
		}
	}
	if !slices.Equal(keep, m.cfg.Addrs) {
		m.cfg.Addrs = keep
		m.touch(opens)
	}
}
