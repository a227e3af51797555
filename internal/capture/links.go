package capture

import (
	"fmt"
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

// link is a link as it was from a moment on.
type link struct {
	link   Link
	number int // of the interface in the file
	gone   bool
	since  time.Time
	before *link // what it was before, for frames that the ring still holds
}

// at finds the link that a frame belongs to.
func (s *linkSet) at(p *packet) *link {
	l := s.known[p.index]
	for l != nil && l.before != nil && time.Unix(int64(p.sec), int64(p.nsec)).Before(l.since) {
		l = l.before
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

// follow takes in changes of the set, if there were any.
func (c *running) follow() error {
	s := c.set
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
		if _, ok := now[index]; !ok && !l.gone {
			l.gone = true
			_ = c.ring.promiscuous(index, false) // it may have been deleted
		}
	}
	prog, err := c.sel.forLinks(in, out)
	if err != nil {
		return errs.New(errs.Resource, "capture of %d links at once: %w", len(now), err)
	}
	return c.ring.filter(prog)
}

// join takes in a link that is new, returned, or changed its VLAN.
func (c *running) join(index int, l Link) {
	k := c.set.known[index]
	if k != nil && !k.gone && k.link == l {
		return
	}
	if k == nil || k.gone {
		if err := c.ring.promiscuous(index, true); err != nil {
			c.log.Debug("link is not promiscuous", "link", l.Name, "error", err)
		}
	}
	number := 0
	if c.set.separate {
		number = len(c.set.counts)
		i := pcap.Interface{Name: l.Name, Filter: c.spec.Filter, Snaplen: c.spec.Snaplen}
		if l.VLAN != 0 {
			i.About = fmt.Sprintf("VLAN %d", l.VLAN)
		}
		c.sink.record(func(b []byte) []byte { return c.sink.enc.AddInterface(b, i) })
		c.set.counts = append(c.set.counts, 0)
	}
	if k != nil && time.Since(k.since) > time.Second {
		k.before = nil // the ring has forgotten it
	}
	c.set.known[index] = &link{link: l, number: number, since: time.Now(), before: k}
}
