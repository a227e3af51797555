package sim

import (
	"slices"
	"time"
)

// Rumour is a broadcast of 1,000 bytes on its way, spread as gossipsub does:
// each node passes it on at once to some of its neighbours, and within a second
// tells the others that it has it, who then ask for it.
type Rumour struct {
	net    *Net
	from   int
	heard  []time.Duration // by node, from the start; -1: not yet
	began  time.Duration
	copies int
}

const (
	fanout    = 6 // neighbours that get it at once; all of them at its origin
	heartbeat = time.Second
)

// Reach is how far a broadcast came.
type Reach struct {
	Reached, Alive int
	Median, Last   time.Duration
	Copies         float64 // sent for each node reached
}

// Broadcast sends a message from a node.
func (s *Net) Broadcast(from int) *Rumour {
	r := &Rumour{net: s, from: from, heard: make([]time.Duration, len(s.Nodes)), began: s.now}
	for i := range r.heard {
		r.heard[i] = -1
	}
	r.heard[from] = 0
	for _, c := range s.Nodes[from].order {
		s.tell(c, c.other(from), r, 0)
	}
	return r
}

// Reach says how far it came until now, among those still alive.
func (r *Rumour) Reach() Reach {
	var times []time.Duration
	var result Reach
	for i, n := range r.net.Nodes {
		if !n.Alive || n.Group != r.net.Nodes[r.from].Group {
			continue
		}
		result.Alive++
		if r.heard[i] >= 0 {
			times = append(times, r.heard[i])
		}
	}
	slices.Sort(times)
	result.Reached, result.Median, result.Last = len(times), times[len(times)/2], times[len(times)-1]
	result.Copies = float64(r.copies) / float64(len(times))
	return result
}

func (s *Net) tell(c *conn, to int, r *Rumour, more time.Duration) {
	r.copies++
	s.pass(c, to, more+s.transfer(1000), event{kind: hear, rumour: r})
}

// hear takes in a rumour and passes it on when it is new.
func (s *Net) hear(n *Node, e event) {
	r := e.rumour
	if r.heard[n.index] >= 0 || n.Group != s.Nodes[e.conn.other(n.index)].Group {
		return
	}
	r.heard[n.index] = s.now - r.began
	for i, j := range s.rand.Perm(len(n.order)) {
		if c := n.order[j]; i < fanout && c != e.conn {
			s.tell(c, c.other(n.index), r, 0)
		}
	}
	s.at(time.Duration(s.rand.Int64N(int64(heartbeat))), event{kind: gossip, node: n.index, rumour: r})
}

// offer gives a rumour to the neighbours who do not have it.
func (s *Net) offer(n *Node, r *Rumour) {
	for _, c := range n.order {
		if to := c.other(n.index); r.heard[to] < 0 && s.Nodes[to].Alive {
			s.tell(c, to, r, 2*s.opts.Latency)
		}
	}
}
