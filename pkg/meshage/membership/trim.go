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
}

const (
	trimHold      = 30 * time.Second // those who parted do not seek each other again
	settled       = 3 * time.Second  // younger links are left alone
	prunePatience = 2 * time.Second
)

// limits returns above how many links the node asks others to part, and above
// how many it asks also those who have none too many. The space between them
// and the target keeps links from coming and going.
func limits(target int) (soft, hard int) { return target + max(2, target/2), 2*target + 6 }

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
	if target == 0 || s.prune.with != "" || m.now < s.prune.next || len(m.order) <= soft {
		return
	}
	desperate := len(m.order) > hard
	l := m.leastNeeded(target, desperate)
	if l == nil {
		s.prune.next = m.now + 2*time.Second
		return
	}
	s.prune = prune{with: l.id, until: m.now + prunePatience, next: m.now + m.between(time.Second/2, time.Second)}
	sooner(&s.at, s.prune.next)
	ask := byte(pruneAsk)
	if desperate {
		ask = pruneHard
	}
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
	for _, l := range those[:min(len(those), 4)] {
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
			s.prune = prune{with: l.id, until: m.now + prunePatience, next: s.prune.next}
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
	if n == nil || m.seek.prune.with != "" && m.seek.prune.with != l.id {
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
	m.drop(l, "both ends have links enough", trimHold)
}
