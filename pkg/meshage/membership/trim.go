package membership

import (
	"fmt"
	"slices"
	"time"
)

// prune is the one talk about ending a link that a node is in.
type prune struct {
	with  ID
	until time.Duration
	next  time.Duration // when to ask again at the earliest
	hold  time.Duration // neither ask nor agree before
}

const (
	trimHold      = 30 * time.Second // those who parted do not seek each other again
	settled       = 3 * time.Second  // younger links are left alone
	prunePatience = 2 * time.Second
)

// limits returns above how many links the node asks others to part, and above
// how many it asks also those who have none too many. The space between them
// and the target keeps links from coming and going.
func limits(target int) (soft, hard int) { return target*3/2 + 2, 2*target + 6 }

// crowded reports whether the node has so many links that others should do
// without theirs to it. It stays so until there are few enough.
func (m *Machine) crowded() bool {
	target := m.target()
	soft, hard := limits(target)
	was := m.table.self.crowded
	is := target > 0 && (len(m.order) > hard || was && len(m.order) > soft)
	if is != was {
		m.seek.prune.wait(m.now)
	}
	return is
}

// wait puts off trimming until all know who is crowded: those who disagree on
// the weights of links might cut more than the mesh can bear.
func (p *prune) wait(now time.Duration) { p.hold = now + prunePatience }

// trim asks one neighbour to part, when the node has more links than it wants.
// Both ends must agree, neither may have pinned the link, and the mesh must hold
// together without it.
func (m *Machine) trim() {
	s := &m.seek
	if s.prune.with != "" && m.now >= s.prune.until {
		s.prune.with = ""
	}
	target := m.target()
	soft, hard := limits(target)
	if target == 0 || s.prune.with != "" || m.now < max(s.prune.next, s.prune.hold) || len(m.order) <= soft {
		return
	}
	desperate := len(m.order) > hard || m.table.self.crowded
	l := m.leastNeeded(target, desperate)
	if l == nil {
		s.prune.next = m.now + 2*time.Second
		return
	}
	ask, pause := byte(pruneAsk), m.between(time.Second/2, time.Second)
	if desperate {
		ask, pause = pruneHard, pause/4
	}
	s.prune.with, s.prune.until, s.prune.next = l.id, m.now+prunePatience, m.now+pause
	sooner(&s.at, s.prune.next)
	m.send(l, []byte{kindPrune, ask})
}

// leastNeeded finds a link to part with, of those to the neighbours with the
// most links.
func (m *Machine) leastNeeded(target int, desperate bool) *link {
	least := target
	if desperate {
		least = 1
	}
	var those []*link
	for _, l := range m.order {
		if n := m.table.nodes[l.key]; n != nil && m.now-l.since >= settled && len(n.declared) > least {
			those = append(those, l)
		}
	}
	links := func(l *link) int { return len(m.table.nodes[l.key].declared) }
	slices.SortStableFunc(those, func(a, b *link) int { return links(b) - links(a) })
	for _, l := range those[:min(len(those), 16)] {
		if m.mayPart(l, m.table.nodes[l.key]) {
			return l
		}
	}
	return nil
}

func (m *Machine) mayPart(l *link, n *node) bool {
	return !l.pinned && !m.seek.pinned(l.id) && n.member && m.table.spare(n)
}

// onPrune takes part in the talk about ending a link.
func (m *Machine) onPrune(l *link, b []byte) error {
	if len(b) != 1 {
		return errShort
	}
	s := &m.seek
	switch b[0] {
	case pruneAsk, pruneHard:
		answer := byte(pruneNo)
		if m.agree(l, b[0] == pruneHard) {
			answer = pruneYes
			s.prune.with, s.prune.until = l.id, m.now+prunePatience
		}
		m.send(l, []byte{kindPrune, answer})
	case pruneYes:
		m.part(l)
	case pruneNo:
		if s.prune.with == l.id {
			s.prune.with = ""
		}
	default:
		return fmt.Errorf("prune message of unknown kind %d", b[0])
	}
	return nil
}

// agree reports whether the node can do without a link.
func (m *Machine) agree(l *link, hard bool) bool {
	n := m.table.nodes[l.key]
	if n == nil || m.seek.prune.with != "" && m.seek.prune.with != l.id || m.now < m.seek.prune.hold {
		return false
	}
	return len(m.order) > 1 && (hard || len(m.order) > m.target()) && m.mayPart(l, n)
}

// part ends a link on which both agreed.
func (m *Machine) part(l *link) {
	n := m.table.nodes[l.key]
	if m.seek.prune.with != l.id || n == nil || !m.mayPart(l, n) {
		return
	}
	m.stats.Trimmed++
	m.send(l, []byte{kindBye, byeTrim})
	m.do(Drop{ID: l.id, Why: "both ends have links enough"})
	m.forget(l, spare)
	m.seek.lostLink(m, l, trimHold)
}
