// Package sim runs many membership machines in virtual time, over links whose
// latency, loss and breaks are modelled. Links are reliable streams, so a lost
// packet of theirs means delay; a lost beacon is lost. A run depends on nothing
// but its options.
package sim

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"minimega/pkg/meshage/membership"
)

// Options describes a network.
type Options struct {
	Seed    uint64
	Latency time.Duration // mean of one way; 500 µs when 0
	Loss    float64       // share of packets lost
	Degree  int           // of each node
	// CanDial says who can make a link to whom; nil: everybody.
	CanDial func(from, to int) bool
	// Configure changes the configuration of a node before it starts.
	Configure func(node int, c *membership.Config)
	// Cost is the time of a processor that each event takes, when all nodes
	// share Cores of them: so they starve each other.
	Cost  time.Duration
	Cores int
	// Watch sees each action of a node.
	Watch func(node int, a membership.Action)
}

// Overhead is what a message takes on the wire besides its data: TLS record,
// framing, TCP and IP headers.
const Overhead = 100

// When TCP repeats what was lost: once by a tail loss probe (RFC 8985), then by
// its timer, which doubles each time (RFC 6298; 200 ms on Linux).
const (
	probe = 10 * time.Millisecond
	rto   = 200 * time.Millisecond
)

// Net is a network of nodes.
type Net struct {
	Nodes []*Node
	// Twice counts the members that joined, or left, twice in a row: none,
	// unless a machine is wrong.
	Twice int

	opts  Options
	rand  *rand.Rand
	now   time.Duration
	queue queue
	truth Truth
	wrong int // nodes alive with a wrong picture
	right time.Duration
	busy  []time.Duration // until when, by processor
}

// Node is one of them.
type Node struct {
	ID       membership.ID
	Machine  *membership.Machine
	Alive    bool
	Group    int // nodes of different groups cannot hear each other
	Sent     int64
	Messages int64

	index   int
	conns   map[int]*conn
	order   []*conn
	wake    time.Duration
	waits   bool         // its tick waits for a processor
	members map[int]bool // whom it announced, by number
	wrong   int          // members that it lacks or has too many
	boot    uint64
	drift   time.Duration // added to its clock
	frozen  time.Duration // until then it gets no time to run
}

type conn struct {
	a, b   int
	open   bool
	last   [2]time.Duration // latest delivery at a and at b
	opened [2]bool          // LinkUp was said to a and to b
}

func (c *conn) other(i int) int { return c.a + c.b - i }

func (c *conn) side(i int) int {
	if i == c.a {
		return 0
	}
	return 1
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes an empty network.
func New(opts Options) *Net {
	if opts.Latency == 0 {
		opts.Latency = 500 * time.Microsecond
	}
	n := &Net{opts: opts, rand: rand.New(rand.NewPCG(opts.Seed, 1)), truth: Connected, busy: make([]time.Duration, opts.Cores)}
	return n
}

// Now is how long the network has run.
func (s *Net) Now() time.Duration { return s.now }

// Rand is the network's source of chance.
func (s *Net) Rand() *rand.Rand { return s.rand }

// ID returns the ID of a node: 34 bytes, as long as a libp2p peer ID of its
// kind of key, and not UTF-8.
func ID(i int) membership.ID {
	b := make([]byte, 34)
	for j := range b {
		b[j] = byte(0x80 + j*7)
	}
	binary.BigEndian.PutUint32(b, uint32(i)+1)
	return membership.ID(b)
}

// Add starts a node after a time and returns its number.
func (s *Net) Add(after time.Duration) int {
	i := len(s.Nodes)
	s.Nodes = append(s.Nodes, &Node{ID: ID(i), index: i})
	s.at(after, event{kind: start, node: i})
	return i
}

// Restart starts a node that was killed again, with the same ID, after a time,
// and with a clock that is wrong by drift.
func (s *Net) Restart(i int, after, drift time.Duration) {
	s.Nodes[i].drift = drift
	s.at(after, event{kind: start, node: i})
}

func (s *Net) start(n *Node) {
	n.boot++
	c := membership.Config{Self: n.ID, Name: fmt.Sprintf("node%d", n.index), Context: "minimega",
		Addrs: []string{fmt.Sprintf("/ip4/10.0.%d.%d/tcp/9000", n.index>>8, n.index&255)},
		Boot:  n.boot<<32 | uint64(n.index), Start: uint64(epoch.Add(s.now + n.drift).UnixMilli()), Degree: s.opts.Degree,
		Rand: rand.New(rand.NewPCG(s.opts.Seed, uint64(n.index)<<20|n.boot))}
	if s.opts.Configure != nil {
		s.opts.Configure(n.index, &c)
	}
	m, err := membership.New(c, epoch.Add(s.now))
	if err != nil {
		panic(err) // the options of a test are wrong
	}
	n.Machine, n.conns, n.order, n.frozen, n.wake, n.waits = m, map[int]*conn{}, nil, 0, 0, false
	s.revive(n, true)
	s.schedule(n)
}

// Handle gives a node an event from outside.
func (s *Net) Handle(i int, e membership.Event) {
	n := s.Nodes[i]
	if n.Alive {
		s.act(n, n.Machine.Handle(epoch.Add(s.now), e))
	}
}

// Kill ends a node. Its neighbours are told by their transport when said, as
// when a process dies; otherwise they hear nothing more, as when a host dies.
func (s *Net) Kill(i int, said bool) {
	n := s.Nodes[i]
	if !n.Alive {
		return
	}
	s.revive(n, false)
	for _, c := range n.order {
		if said {
			s.close(c, i)
		}
	}
	n.order, n.conns, n.Machine = nil, nil, nil
}

// Freeze keeps a node from running for a time: its process is starved.
func (s *Net) Freeze(i int, d time.Duration) { s.Nodes[i].frozen = s.now + d }

// Split puts nodes into groups that cannot hear each other.
func (s *Net) Split(group func(node int) int) {
	for i, n := range s.Nodes {
		n.Group = group(i)
	}
	s.Judge(s.truth)
}

// Connect makes a link, as if one had dialled the other from outside.
func (s *Net) Connect(a, b int) { s.connect(a, b) }

// Cut closes a link at both ends.
func (s *Net) Cut(a, b int) {
	if c := s.Nodes[a].conns[b]; c != nil {
		s.close(c, a)
		s.Handle(a, membership.LinkDown{ID: s.Nodes[b].ID})
	}
}

// Degree counts the links of a node.
func (n *Node) Degree() int { return len(n.order) }

// Linked reports whether two nodes have a link.
func (s *Net) Linked(a, b int) bool { return s.Nodes[a].Alive && s.Nodes[a].conns[b] != nil }

// Run lets time pass.
func (s *Net) Run(d time.Duration) { s.until(s.now+d, func() bool { return false }) }

// Converge lets time pass until all have had the right members for as long as
// rest, but not longer than limit. It returns when they were right, from now.
func (s *Net) Converge(limit, rest time.Duration) (time.Duration, bool) {
	from := s.now
	s.right = s.now
	done := s.until(s.now+limit, func() bool { return s.wrong == 0 && s.now-s.right >= rest })
	return s.right - from, done
}

func (s *Net) until(end time.Duration, done func() bool) bool {
	for s.queue.len() > 0 && s.queue.first().at <= end {
		e := s.queue.pop()
		s.now = e.at
		if done() {
			return true
		}
		s.happen(e)
	}
	s.now = end
	return done()
}
