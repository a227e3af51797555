package sim

import (
	"bytes"
	"slices"
	"time"

	"minimega/pkg/meshage/membership"
)

// act does what a machine wants.
func (s *Net) act(n *Node, actions []membership.Action) {
	for _, a := range actions {
		if s.opts.Watch != nil {
			s.opts.Watch(n.index, a)
		}
		switch a := a.(type) {
		case membership.Send:
			s.send(n, a.To, a.Data)
		case membership.Dial:
			s.dial(n, a.ID)
		case membership.Drop:
			if c := n.conns[number(a.ID)]; c != nil {
				s.close(c, n.index)
			}
		case membership.Joined:
			s.changed(n, number(a.Member.ID), true)
		case membership.Left:
			s.changed(n, number(a.Member.ID), false)
		case membership.Beacon:
			n.Sent += Overhead
			s.at(s.delay(), event{kind: beacon, node: n.index, seeking: a.Seeking})
		}
	}
	s.schedule(n)
}

func number(id membership.ID) int {
	return int(id[0])<<24 | int(id[1])<<16 | int(id[2])<<8 | int(id[3]) - 1
}

func (s *Net) schedule(n *Node) {
	if n.waits {
		return
	}
	next := n.Machine.Next()
	at := max(next.Sub(epoch), s.now)
	if n.wake <= s.now || at < n.wake {
		n.wake = at
		s.at(at-s.now, event{kind: tick, node: n.index})
	}
}

// delay is how long a packet takes.
func (s *Net) delay() time.Duration {
	return s.opts.Latency/2 + time.Duration(s.rand.Int64N(int64(s.opts.Latency)))
}

// transfer is how long a message takes with what must be repeated.
func (s *Net) transfer(size int) time.Duration {
	d := s.delay()
	if s.opts.Loss == 0 {
		return d
	}
	for range 1 + size/1400 {
		wait, again := time.Duration(0), probe
		for s.rand.Float64() < s.opts.Loss {
			wait += again
			again = max(rto, 2*again)
		}
		d = max(d, wait+s.delay())
	}
	return d
}

func (s *Net) send(n *Node, to membership.ID, data []byte) {
	c := n.conns[number(to)]
	n.Sent += int64(len(data) + Overhead)
	n.Messages++
	if c == nil {
		return
	}
	// A copy takes no more memory than it must: with loss, much is under way.
	s.pass(c, c.other(n.index), s.transfer(len(data)), event{kind: message, data: bytes.Clone(data)})
}

// pass delivers in order.
func (s *Net) pass(c *conn, to int, delay time.Duration, e event) {
	last := &c.last[c.side(to)]
	*last = max(*last, s.now+delay)
	e.node, e.conn = to, c
	s.at(*last-s.now, e)
}

func (s *Net) dial(n *Node, id membership.ID) {
	to := number(id)
	peer := s.Nodes[to]
	switch {
	case s.opts.CanDial != nil && !s.opts.CanDial(n.index, to):
		s.at(2*s.delay(), event{kind: failed, node: n.index, peer: to})
	case n.Group != peer.Group:
		s.at(5*time.Second, event{kind: failed, node: n.index, peer: to})
	case !peer.Alive:
		s.at(2*s.delay(), event{kind: failed, node: n.index, peer: to})
	default:
		s.at(3*s.transfer(0), event{kind: dialed, node: to, peer: n.index})
	}
}

func (s *Net) connect(a, b int) {
	from, to := s.Nodes[a], s.Nodes[b]
	if !from.Alive || !to.Alive || a == b {
		return
	}
	if from.conns[b] != nil || to.conns[a] != nil {
		s.at(s.delay(), event{kind: failed, node: a, peer: b})
		return
	}
	c := &conn{a: a, b: b, open: true}
	from.remember(c)
	to.remember(c)
	s.pass(c, b, 0, event{kind: up})
	s.pass(c, a, s.delay(), event{kind: up})
}

func (n *Node) remember(c *conn) {
	n.conns[c.other(n.index)] = c
	n.order = append(n.order, c)
}

func (n *Node) forget(c *conn) {
	if i := slices.Index(n.order, c); i >= 0 {
		n.order = slices.Delete(n.order, i, i+1)
		delete(n.conns, c.other(n.index))
	}
}

// close ends a link at one end, and later at the other.
func (s *Net) close(c *conn, by int) {
	if n := s.Nodes[by]; n.Alive {
		n.forget(c)
	}
	if c.open {
		c.open = false
		s.pass(c, c.other(by), s.delay(), event{kind: down})
	}
}
