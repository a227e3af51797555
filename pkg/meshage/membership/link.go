package membership

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// link is a link of this node.
type link struct {
	id  ID
	key uint64

	ready  bool   // its hello has come
	boot   uint64 // of the other end, from its hello
	stale  bool   // the record there is of the other end is from before it was started again
	pinned bool   // at the other end
	since  time.Duration

	heard    time.Duration // last sign of life
	interval time.Duration // between its heartbeats, as it says
	gap      time.Duration // longest silence of late that ended well
	again    time.Duration // the second longest
	probed   bool          // asked for a sign since heard
	base     time.Duration // of what its clock and ours differ: the least seen
	lag      time.Duration // how much longer than that its beats take of late
	late     time.Duration // how much later than the earliest the last beat came

	at       uint64           // the log is sent up to here
	extra    []*node          // to be sent besides
	has      map[*node]uint64 // versions that it has shown since the last flush
	budget   float64          // records that it may still send
	refilled time.Duration

	differs  time.Duration // since when its digest differs, 0 when it does not
	compare  time.Duration // when a summary was last sent
	patience time.Duration
}

// linkUp greets a new neighbour.
func (m *Machine) linkUp(id ID) {
	m.seek.answered(id)
	if m.links[id] != nil || id == m.cfg.Self || len(id) == 0 || len(id) > MaxID {
		return
	}
	l := &link{id: id, key: keyOf(id), since: m.now, heard: m.now, interval: m.cfg.Heartbeat, has: map[*node]uint64{}, base: never,
		budget: m.burst(), refilled: m.now, patience: quiet}
	if len(m.order) >= MaxPeers {
		m.do(Drop{ID: id, Why: fmt.Sprintf("this node has %d links already", MaxPeers)})
		return
	}
	m.links[id] = l
	at, _ := slices.BinarySearchFunc(m.order, l.key, func(l *link, key uint64) int { return cmp.Compare(l.key, key) })
	m.order = slices.Insert(m.order, at, l)
	sooner(&m.pulse.at, m.now+m.interval())
	self := m.table.self
	m.send(l, hello{pinned: m.seek.pinned(id), boot: self.boot, version: self.version, digest: m.table.digest}.encode())
}

// linkDown is told by the transport.
func (m *Machine) linkDown(id ID) {
	if l := m.links[id]; l != nil {
		m.forget(l, loses)
		m.seek.lostLink(m, l, 0)
	}
}

// forget takes a link out of everything.
func (m *Machine) forget(l *link, n news) {
	delete(m.links, l.id)
	m.order = slices.DeleteFunc(m.order, func(o *link) bool { return o == l })
	if l.ready {
		m.declareLinks(n)
	}
	m.seek.hurry(m)
}

// drop ends a link for a reason, and keeps off its other end for a while.
func (m *Machine) drop(l *link, why string, keepOff time.Duration) {
	m.do(Drop{ID: l.id, Why: why})
	m.forget(l, loses)
	m.seek.lostLink(m, l, keepOff)
}

// faultHold is how long a node that broke the protocol is kept off.
const faultHold = 30 * time.Second

// fault ends the link to a node that broke the protocol. Nothing else suffers.
func (m *Machine) fault(l *link, err error) {
	m.stats.Faults++
	m.do(Drop{ID: l.id, Why: err.Error(), Fault: true})
	m.forget(l, loses)
	m.seek.lostLink(m, l, faultHold)
	m.seek.refuse(m, l.id, faultHold)
}

func (m *Machine) send(l *link, data []byte) {
	m.do(Send{l.id, data})
}

// message takes in what a neighbour said. Messages of links that were dropped
// may still arrive and mean nothing.
func (m *Machine) message(from ID, data []byte) {
	l := m.links[from]
	if l == nil {
		return
	}
	l.alive(m.now)
	if err := m.understand(l, data); err != nil {
		m.fault(l, err)
	}
}

func (m *Machine) understand(l *link, data []byte) error {
	switch {
	case len(data) == 0:
		return errShort
	case len(data) > MaxMessage:
		return fmt.Errorf("message of %d bytes, the limit is %d", len(data), MaxMessage)
	case l.spend(m, 1) != nil:
		return errFlood
	case (data[0] == kindHello) == l.ready && data[0] != kindBye:
		return fmt.Errorf("message of kind %d where the hello must be, and only there", data[0])
	}
	kind, body := data[0], data[1:]
	switch kind {
	case kindHello:
		return m.onHello(l, body)
	case kindBeat:
		return m.onBeat(l, body)
	case kindSummary:
		return m.onSummary(l, body)
	case kindUpdate:
		return m.onUpdate(l, body)
	case kindPrune:
		return m.onPrune(l, body)
	case kindBye:
		return m.onBye(l, body)
	}
	return fmt.Errorf("message of unknown kind %d", kind)
}

func (m *Machine) onHello(l *link, b []byte) error {
	h, err := decodeHello(b)
	if err != nil {
		return err
	}
	l.pinned = h.pinned
	if why := m.seek.unwanted(m, l); why != "" {
		m.do(Send{l.id, []byte{kindBye, byeHangup}})
		m.drop(l, why, 0)
		return nil
	}
	l.ready = true
	l.at = m.flood.end()
	n := m.table.at(l.key)
	if n.version > h.version || n.version == h.version && n.boot != h.boot && n.version > 0 {
		m.extra(l, n) // it was started again, and must go above this
	}
	l.boot, l.stale = h.boot, n.version > 0 && n.boot != h.boot
	if h.digest != m.table.digest {
		m.sendSummary(l, false)
	}
	if n.member {
		m.declareLinks(spare)
	} else {
		m.declareLinks(opens)
	}
	return nil
}

func (m *Machine) onBye(l *link, b []byte) error {
	if len(b) != 1 {
		return errShort
	}
	m.do(Drop{ID: l.id, Why: "the other end said good-bye"})
	if b[0] == byeTrim {
		m.forget(l, spare)
		m.seek.lostLink(m, l, trimHold)
		return nil
	}
	m.forget(l, loses)
	if b[0] == byeHangup {
		m.seek.refuse(m, l.id, m.cfg.Hold)
		m.seek.unpin(l.id)
	} else {
		m.seek.lostLink(m, l, m.cfg.Hold)
	}
	return nil
}
