package meshage

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"minimega/pkg/meshage/membership"
)

// silence is how long a neighbour may say nothing before its connection counts
// as dead. Those that live have more frequent heartbeats.
const silence = time.Second

// handle gives an event to the membership machine.
func (n *Node) handle(e membership.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handleLocked(e)
}

func (n *Node) handleLocked(e membership.Event) {
	n.applyLocked(n.machine.Handle(time.Now(), e))
	if n.machine.Next().Before(n.alarm) {
		n.poke()
	}
}

// poke has the clock of the machine read again.
func (n *Node) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// ticks is the clock of the machine.
func (n *Node) ticks() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		n.mu.Lock()
		n.alarm = n.machine.Next()
		wait := time.Until(n.alarm)
		n.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-n.ctx.Done():
			return
		case <-n.wake:
			continue
		case <-timer.C:
		}
		n.mu.Lock()
		n.applyLocked(n.machine.Tick(time.Now()))
		n.mu.Unlock()
	}
}

// applyLocked does what the machine wants, in order. Nothing here waits.
func (n *Node) applyLocked(actions []membership.Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case membership.Send:
			n.sendLocked(peer.ID(a.To), a.Data)
		case membership.Dial:
			n.tasks.run(func() { n.dialLink(peer.ID(a.ID), a.Addrs) })
		case membership.Drop:
			n.dropLocked(a)
		case membership.Joined:
			n.members.join(Member{Name: a.Member.Name, Joined: a.Member.Joined}, peer.ID(a.Member.ID))
		case membership.Left:
			n.leftLocked(a.Member)
		case membership.Beacon:
			n.beacon(a.Seeking)
		case membership.Conflict:
			n.tasks.run(func() {
				n.log.Error("another host uses this host's mesh identity: remove the copied identity file there and start it again")
			})
		}
	}
}

func (n *Node) sendLocked(to peer.ID, data []byte) {
	l := n.links[to]
	if l == nil {
		return
	}
	select {
	case l.out <- data:
	default:
		n.tasks.run(func() {
			n.log.Warn("neighbour takes no messages: link closed", "peer", n.nameOf(to))
			n.linkLost(l)
		})
	}
}

// dropLocked ends a link. Its connection stays for the streams on it, or those
// that are being opened, and is closed by tidy; unless it is dead or worse.
func (n *Node) dropLocked(d membership.Drop) {
	l := n.links[peer.ID(d.ID)]
	if l == nil {
		return
	}
	level := slog.LevelDebug
	if d.Fault {
		level = slog.LevelWarn
	}
	n.tasks.run(func() { n.log.Log(n.ctx, level, "link closed", "peer", n.nameOf(l.id), "why", d.Why) })
	delete(n.links, l.id)
	l.end(d.Fault || time.Since(l.heardAt) > silence)
}

// leftLocked breaks the streams of a member that has left and its connections,
// unless it has come back on a new one already.
func (n *Node) leftLocked(m membership.Member) {
	id := peer.ID(m.ID)
	n.members.left(id)
	n.dials.forget(id)
	if n.links[id] == nil {
		n.tasks.run(func() { _ = n.swarm.ClosePeer(id) })
	}
}

// nameOf is what a log calls a node.
func (n *Node) nameOf(id peer.ID) string {
	if m := n.members.get(id); m != nil {
		return m.Name
	}
	return id.String()
}

// goodbye tells the neighbours that the node ends, and gives that a moment.
func (n *Node) goodbye() {
	n.mu.Lock()
	n.applyLocked(n.machine.Handle(time.Now(), membership.Leave{}))
	var links []*link
	for id, l := range n.links {
		delete(n.links, id)
		if l.up {
			l.end(false)
			links = append(links, l)
		}
	}
	n.mu.Unlock()
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	for _, l := range links {
		select {
		case <-l.heard:
		case <-t.C:
			return
		}
	}
}
