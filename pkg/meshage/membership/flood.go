package membership

import (
	"errors"
	"time"
)

// flood is the log of records that changed. Each link sends from where it
// stands to the end, in batches; a record that changed again is sent once.
type flood struct {
	log  []change
	base uint64        // number of log[0]
	at   time.Duration // when the next batch is due
	last time.Duration // when the last was
	pace time.Duration // from the first record of a batch to its flush
}

type change struct {
	n       *node
	version uint64
}

// Batches: how long to collect, and how much a link gets in one.
const (
	batchMin   = 20 * time.Millisecond
	batchMax   = 160 * time.Millisecond
	batchQuiet = 300 * time.Millisecond
	batchGap   = 30 * time.Millisecond
	batchLimit = 256      // records
	batchBytes = 64 << 10 // of one message, but for one record more

	recordsPerSecond = 10_000 // that a neighbour may send in the long run
)

var errFlood = errors.New("it sends more records than it may")

func (f *flood) end() uint64 { return f.base + uint64(len(f.log)) }

// spread makes a changed record known to the neighbours.
func (m *Machine) spread(n *node) {
	m.flood.log = append(m.flood.log, change{n, n.version})
	m.batch()
}

// batch makes a flush due: soon after a quiet time, later while much goes on.
func (m *Machine) batch() {
	f := &m.flood
	if f.at != never {
		return
	}
	if m.now-f.last > batchQuiet {
		f.pace = batchMin
	} else {
		f.pace = min(max(2*f.pace, batchMin), batchMax)
	}
	f.at = m.now + m.between(f.pace/2, f.pace*3/2) + m.relief()
}

// extra sends a record to one neighbour, though it did not change.
func (m *Machine) extra(l *link, n *node) {
	if len(l.extra) < 2*m.cfg.Members && l.spend(m, 1) == nil {
		l.extra = append(l.extra, n)
		m.batch()
	}
}

// flush sends each neighbour its batch.
func (m *Machine) flush() {
	f := &m.flood
	f.at, f.last = never, m.now
	least, more := f.end(), false
	for _, l := range m.order {
		if !l.ready {
			continue
		}
		more = m.flushLink(l) || more
		least = min(least, l.at)
	}
	rest := copy(f.log, f.log[least-f.base:])
	clear(f.log[rest:])
	f.log, f.base = f.log[:rest], least
	if more {
		f.at = m.now + batchGap
	}
}

// flushLink sends one batch, and reports whether there is more.
func (m *Machine) flushLink(l *link) bool {
	f := &m.flood
	var data []byte
	count := 0
	add := func(n *node) {
		if n.version == 0 {
			return
		}
		if len(data) > batchBytes {
			m.send(l, data)
			data = nil
		}
		data = appendUpdate(data, n)
		count++
	}
	for ; len(l.extra) > 0 && count < batchLimit; l.extra = l.extra[1:] {
		add(l.extra[0])
	}
	for ; l.at < f.end() && count < batchLimit; l.at++ {
		c := f.log[l.at-f.base]
		if c.version == c.n.version && l.has[c.n] != c.version {
			add(c.n)
		}
	}
	if len(data) > 0 {
		m.send(l, data)
	}
	if l.at == f.end() {
		clear(l.has)
		return len(l.extra) > 0
	}
	return true
}

func appendUpdate(b []byte, n *node) []byte {
	if len(b) == 0 {
		b = make([]byte, 0, 1+len(n.frame))
		b = append(b, kindUpdate)
	}
	return append(b, n.frame...)
}

// burst is what a neighbour may send at once: its table, and more.
func (m *Machine) burst() float64 { return max(1000, 4*float64(m.cfg.Members)) }

// spend takes n records off what a neighbour may send.
func (l *link) spend(m *Machine, n int) error {
	l.budget = min(m.burst(), l.budget+(m.now-l.refilled).Seconds()*recordsPerSecond)
	l.refilled = m.now
	if l.budget < float64(n) {
		return errFlood
	}
	l.budget -= float64(n)
	return nil
}

// onUpdate takes in records: those that are new are checked together.
func (m *Machine) onUpdate(l *link, b []byte) error {
	c := cursor{b: b}
	var fresh []*record
	var batch []Signed
	for len(c.b) > 0 {
		f := nextFrame(&c)
		if c.err != nil {
			return c.err
		}
		if err := l.spend(m, 1); err != nil {
			return err
		}
		if !m.news(l, f) {
			continue
		}
		r, err := f.decode()
		if err != nil {
			return err
		}
		fresh = append(fresh, r)
		batch = append(batch, Signed{r.id, f.body, f.sig})
	}
	if err := m.verify(batch); err != nil {
		return err
	}
	for _, r := range fresh {
		m.accept(l, r)
	}
	return nil
}

// news reports whether a record is worth decoding.
func (m *Machine) news(l *link, f rawFrame) bool {
	n := m.table.nodes[f.key]
	switch {
	case n == m.table.self:
		if f.version >= n.version && f.boot != n.boot || f.version > n.version {
			return true
		}
		m.stats.Repeated++
		m.correct(l, n)
		return false
	case n == nil || n.version == 0 || newer(f.version, f.boot, n):
		return true
	case f.version == n.version && f.boot == n.boot:
		m.stats.Repeated++
		l.has[n] = n.version
		m.passAgain(n)
	default:
		m.stats.Repeated++
		m.correct(l, n)
	}
	return false
}

// correct sends a neighbour the newer record that this node has, unless that is
// so new that it is on its way anyway.
func (m *Machine) correct(l *link, n *node) {
	if m.now-n.changed > time.Second {
		m.extra(l, n)
	}
}

// newer reports whether a record beats the one there is.
func newer(version, boot uint64, n *node) bool {
	return version > n.version || version == n.version && boot > n.boot
}

// passAgain passes on a record that is known, but of a node out of reach for a
// while: when a split heals, neighbours may have forgotten it already.
func (m *Machine) passAgain(n *node) {
	if n.was && !n.member && !n.again && m.now-n.lost > time.Second {
		n.again = true
		m.spread(n)
	}
}

var errSignature = errors.New("record with a wrong signature")

func (m *Machine) verify(batch []Signed) error {
	if m.cfg.Verify == nil || len(batch) == 0 {
		return nil
	}
	ok := m.cfg.Verify(batch)
	if len(ok) != len(batch) {
		return errSignature
	}
	for _, good := range ok {
		if !good {
			return errSignature
		}
	}
	return nil
}

// accept stores a record and passes it on.
func (m *Machine) accept(l *link, r *record) {
	if r.key == m.table.self.key {
		m.heardOfSelf(r)
		return
	}
	t := &m.table
	n := t.at(r.key)
	if !m.room(n, r) {
		m.stats.Refused++
		t.release(n)
		return
	}
	if n.version > 0 && !newer(r.version, r.boot, n) {
		return // twice in one message
	}
	m.stats.Received++
	if n.crowded != r.crowded {
		m.seek.prune.wait(m.now)
	}
	if t.put(n, r, m.now) {
		m.graphChanged(false)
	}
	if n.member && n.asBoot != n.boot {
		m.graphChanged(false)
	}
	l.has[n] = n.version
	m.spread(n)
	if to := m.links[n.id]; to != nil && to.stale && to.boot == n.boot {
		to.stale = false
		m.declareLinks(opens)
	}
}

// linksPerMember bounds the graph: links declared, over members allowed.
const linksPerMember = 64

// room reports whether a record may be kept.
func (m *Machine) room(n *node, r *record) bool {
	t := &m.table
	if n.version > 0 && n.id != r.id {
		return false // two IDs of one key: the first stays
	}
	return (n.version > 0 || t.records < m.cfg.Members) &&
		t.declared-len(n.declared)+len(r.peers) <= linksPerMember*m.cfg.Members
}
