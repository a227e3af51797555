package capture

import (
	"fmt"
	"maps"
	"time"

	"minimega/internal/capture/pcap"
	"minimega/internal/errs"
)

// linkSet is what a bridge capture knows of the bridge's links. It belongs to
// the capture's goroutine, except for the channel.
type linkSet struct {
	source   LinkSource
	separate bool // the file has an interface per link; else tags tell them apart
	changed  <-chan struct{}
	stale    bool          // changed was closed, or nothing was read yet
	known    map[int]*link // by interface index; those that left too, for frames still in the ring
	counts   []uint64      // packets by interface number of the file
}

// link is a link as it was from a moment on. Its fields have names for JSON.
type link struct {
	Link   Link
	Since  time.Time
	Left   time.Time // zero while it is there
	Before *link     // what it was before, for frames that the ring still holds
	number int       // of the interface in the file
}

// leftRecently is how long the next process is told of links that have left.
const leftRecently = 10 * time.Second

// at finds the link that a frame belongs to.
func (s *linkSet) at(p *packet) *link {
	l := s.known[p.index]
	for l != nil && l.Before != nil && time.Unix(int64(p.sec), int64(p.nsec)).Before(l.Since) {
		l = l.Before
	}
	return l
}

func newLinkSet(src LinkSource, separate bool) *linkSet {
	return &linkSet{source: src, separate: separate, stale: true, known: map[int]*link{}}
}

// count counts a packet for the statistics of the file.
func (s *linkSet) count(l *link) {
	if s.separate {
		s.counts[l.number]++
	}
}

// follow takes in changes of the links of a bridge, if there were any.
func (c *running) follow() error {
	s := c.set
	if s == nil {
		return nil
	}
	select {
	case <-s.changed:
		s.stale = true
	default:
	}
	if !s.stale {
		return nil
	}
	s.stale = false
	var links []Link
	links, s.changed = s.source.Links()
	c.watch(s.changed)
	return c.apply(links)
}

// watch wakes the capture when the set changes.
func (c *running) watch(changed <-chan struct{}) {
	c.watchers.Go(func() {
		select {
		case <-changed:
			c.wake()
		case <-c.ended:
		}
	})
}

// apply makes the ring receive from these links and no others.
func (c *running) apply(links []Link) error {
	now := map[int]Link{}
	for _, l := range links {
		index, err := linkIndex(l.Name)
		if err != nil {
			c.log.Debug("link left before it could be captured", "link", l.Name, "error", err)
			continue
		}
		now[index] = l
	}
	var in, out []int
	for index, l := range now {
		c.join(index, l)
		if l.Host {
			out = append(out, index)
		} else {
			in = append(in, index)
		}
	}
	for index, l := range c.set.known {
		if _, ok := now[index]; !ok && l.Left.IsZero() {
			l.Left = time.Now()
			_ = c.ring.promiscuous(index, false) // it may have been deleted
		}
	}
	c.keep()
	prog, err := c.sel.forLinks(in, out)
	if err != nil {
		return errs.New(errs.Resource, "capture of %d links at once: %w", len(now), err)
	}
	return c.ring.filter(prog)
}

// join takes in a link that is new, returned, or changed its VLAN.
func (c *running) join(index int, l Link) {
	k := c.set.known[index]
	if k != nil && k.Left.IsZero() && k.Link == l {
		return
	}
	if k == nil || !k.Left.IsZero() {
		if err := c.ring.promiscuous(index, true); err != nil {
			c.log.Debug("link is not promiscuous", "link", l.Name, "error", err)
		}
	}
	if k != nil && time.Since(k.Since) > time.Second {
		k.Before = nil // the ring has forgotten it
	}
	c.set.known[index] = &link{Link: l, number: c.declare(l), Since: time.Now(), Before: k}
}

// declare gives a link its number in the file.
func (c *running) declare(l Link) (number int) {
	if !c.set.separate {
		return 0
	}
	number = len(c.set.counts)
	i := pcap.Interface{Name: l.Name, Filter: c.spec.Filter, Snaplen: c.spec.Snaplen}
	if l.VLAN != 0 {
		i.About = fmt.Sprintf("VLAN %d", l.VLAN)
	}
	c.sink.record(func(b []byte) []byte { return c.sink.enc.AddInterface(b, i) })
	c.set.counts = append(c.set.counts, 0)
	return number
}

// keep notes the links for a later process, which finds frames of theirs in the ring.
func (c *running) keep() {
	known := map[int]*link{}
	for index, l := range c.set.known {
		if l.Left.IsZero() || time.Since(l.Left) < leftRecently {
			known[index] = l
		}
	}
	if err := c.mem.keepLinks(known); err != nil {
		c.log.Debug("links are not kept", "error", err)
	}
}

// recall takes in the links that the process before had, in a new section of
// the file, if there are such, that begins with head.
func (c *running) recall(head []byte) {
	if c.set.separate {
		c.sink.record(func(b []byte) []byte { return append(b, head...) })
	}
	known := map[int]*link{}
	if err := c.mem.keptLinks(&known); err != nil {
		c.log.Debug("links were not kept", "error", err)
		return
	}
	for _, first := range known {
		for l := first; l != nil; l = l.Before {
			l.number = c.declare(l.Link)
		}
	}
	maps.Copy(c.set.known, known)
}
