package sim

import (
	"slices"
	"time"

	"minimega/pkg/meshage/membership"
)

type kind uint8

const (
	start   kind = iota
	tick         // node
	message      // data arrives at node over conn
	up           // conn is there, for node
	down         // conn has ended, for node
	dialed       // node's dial arrives at peer
	failed       // node's dial to peer has failed
	beacon       // of node
	hear         // a rumour arrives at node
	gossip       // node offers a rumour to those who may lack it
)

type event struct {
	at         time.Duration
	seq        uint64
	kind       kind
	node, peer int
	conn       *conn
	data       []byte
	seeking    bool
	served     bool // has waited for a processor
	rumour     *Rumour
}

// queue is a heap of events by time, then by order of making.
type queue struct {
	heap []event
	seq  uint64
}

func (q *queue) len() int      { return len(q.heap) }
func (q *queue) first() *event { return &q.heap[0] }

func (q *queue) less(i, j int) bool {
	a, b := &q.heap[i], &q.heap[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *queue) push(e event) {
	q.seq++
	e.seq = q.seq
	q.heap = append(q.heap, e)
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.less(i, up) {
			return
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *queue) pop() event {
	e := q.heap[0]
	last := len(q.heap) - 1
	q.heap[0] = q.heap[last]
	q.heap[last] = event{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if q.less(c, least) {
				least = c
			}
		}
		if least == i {
			return e
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}

func (s *Net) at(after time.Duration, e event) {
	e.at = s.now + after
	s.queue.push(e)
}

// happen lets one event happen.
func (s *Net) happen(e event) {
	n := s.Nodes[e.node]
	if e.kind == start {
		s.start(n)
		return
	}
	if !n.Alive {
		return
	}
	if n.frozen > s.now && e.kind != failed {
		e.at = n.frozen
		s.queue.push(e)
		return
	}
	if s.queued(e) {
		return
	}
	switch e.kind {
	case tick:
		n.waits = false
		if e.served || e.at >= n.wake || e.at == n.frozen {
			s.act(n, n.Machine.Tick(epoch.Add(s.now)))
		}
	case message, up, down:
		s.arrive(n, e)
	case dialed:
		s.connect(e.peer, e.node)
	case failed:
		s.Handle(e.node, membership.DialFailed{ID: s.Nodes[e.peer].ID})
	case beacon:
		s.hearBeacon(n, e.seeking)
	case hear:
		s.hear(n, e)
	case gossip:
		s.offer(n, e.rumour)
	}
}

// queued makes an event wait for a processor.
func (s *Net) queued(e event) bool {
	if len(s.busy) == 0 || e.served {
		return false
	}
	if e.kind == tick {
		if n := s.Nodes[e.node]; e.at != n.wake && e.at != n.frozen {
			return true // another came in its place
		} else {
			n.waits = true
		}
	}
	free := slices.Index(s.busy, slices.Min(s.busy))
	e.at, e.served = max(s.now, s.busy[free]), true
	s.busy[free] = e.at + s.opts.Cost
	s.queue.push(e)
	return true
}

// arrive delivers what comes over a link, when the way is open.
func (s *Net) arrive(n *Node, e event) {
	peer := s.Nodes[e.conn.other(e.node)]
	if n.Group != peer.Group && peer.Alive {
		d := &e.conn.last[e.conn.side(e.node)]
		e.at = s.now + rto
		*d = max(*d, e.at)
		s.queue.push(e)
		return
	}
	open := &e.conn.opened[e.conn.side(e.node)]
	switch e.kind {
	case up:
		if n.conns[peer.index] == e.conn {
			*open = true
			s.Handle(e.node, membership.LinkUp{ID: peer.ID})
		}
	case down:
		if n.conns[peer.index] == e.conn {
			n.forget(e.conn)
			if *open {
				s.Handle(e.node, membership.LinkDown{ID: peer.ID})
			}
		}
	case message:
		if n.conns[peer.index] == e.conn && *open {
			s.Handle(e.node, membership.Message{From: peer.ID, Data: e.data})
		}
	}
}

func (s *Net) hearBeacon(from *Node, seeking bool) {
	e := membership.Seen{ID: from.ID, Addrs: []string{"/ip4/10.0.0.1/tcp/9000"}, Seeking: seeking}
	for i, n := range s.Nodes {
		if n != from && n.Alive && n.frozen <= s.now && n.Group == from.Group && s.rand.Float64() >= s.opts.Loss {
			s.Handle(i, e)
		}
	}
}
