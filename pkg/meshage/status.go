package meshage

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"minimega/pkg/meshage/membership"
)

// Status is the state of a node in numbers.
type Status struct {
	Size    int // members, this node included
	Degree  int // as set
	Peers   int // links
	Context string
	Port    int
}

// Status returns the state of the node.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Status{Size: n.machine.Size(), Degree: n.machine.Degree(), Peers: len(n.machine.Links()), Context: n.opts.Context, Port: int(n.port())}
}

// Degree is how many links the node seeks, as set.
func (n *Node) Degree() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.machine.Degree()
}

// SetDegree changes Degree.
func (n *Node) SetDegree(degree int) { n.handle(membership.SetDegree{Degree: degree}) }

// Peers lists the names of the neighbours.
func (n *Node) Peers() []string {
	n.mu.Lock()
	links := n.machine.Links()
	n.mu.Unlock()
	names := make([]string, 0, len(links))
	for _, id := range links {
		if m := n.members.get(peer.ID(id)); m != nil {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Graph lists the neighbours of every member, this node included, by name. The
// links of nodes of one name come together.
func (n *Node) Graph() map[string][]string {
	n.mu.Lock()
	names := map[membership.ID]string{}
	near := map[membership.ID][]membership.ID{}
	for _, m := range n.machine.Members() {
		names[m.ID] = m.Name
		near[m.ID] = n.machine.Neighbours(m.ID)
	}
	n.mu.Unlock()
	graph := map[string][]string{}
	for id, name := range names {
		if graph[name] == nil {
			graph[name] = []string{}
		}
		for _, other := range near[id] {
			if to, ok := names[other]; ok {
				graph[name] = append(graph[name], to)
			}
		}
	}
	for name := range graph {
		slices.Sort(graph[name])
		graph[name] = slices.Compact(graph[name])
	}
	return graph
}

const (
	tidyTime = 15 * time.Second
	idleTime = 2 * time.Minute // a connection without link or use is closed after it
	addrTime = time.Minute     // between looks at the host's addresses
)

// tidy closes connections that nobody needs, and keeps the node's addresses up
// to date.
func (n *Node) tidy() {
	t := time.NewTicker(tidyTime)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-t.C:
		case <-n.ctx.Done():
			return
		}
		for _, id := range n.swarm.Peers() {
			n.tidyPeer(id)
		}
		n.forgetUsage()
		if time.Since(last) > addrTime {
			last = time.Now()
			n.refreshAddrs()
		}
	}
}

func (n *Node) tidyPeer(id peer.ID) {
	n.mu.Lock()
	u := n.usageLocked(id)
	if u.last.IsZero() {
		u.last = time.Now()
	}
	idle := n.links[id] == nil && u.busy == 0 && time.Since(u.last) > idleTime
	n.mu.Unlock()
	if idle {
		_ = n.swarm.ClosePeer(id)
		return
	}
	conns := n.swarm.ConnsToPeer(id)
	for _, c := range conns[min(1, len(conns)):] {
		// Both sides may have dialled; the connection without streams goes.
		if len(c.GetStreams()) == 0 && time.Since(c.Stat().Opened) > tidyTime {
			_ = c.Close()
		}
	}
}

func (n *Node) forgetUsage() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, u := range n.used {
		if u.busy == 0 && n.links[id] == nil && time.Since(u.last) > 2*idleTime {
			delete(n.used, id)
		}
	}
}

func (n *Node) refreshAddrs() {
	addrs := n.opts.Transport.Addresses(n.listener)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setAddrsLocked(addrs)
}

// faceLocked notes that a neighbour knows this node by ip. Such addresses come
// first of those that the node tells: a host has others, such as those of
// bridges, at which nobody can reach it.
func (n *Node) faceLocked(ip netip.Addr) {
	if !n.facing[ip] {
		n.facing[ip] = true
		n.setAddrsLocked(n.addrs)
	}
}

func (n *Node) setAddrsLocked(addrs []netip.AddrPort) {
	addrs = slices.Clone(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.AddrPort) int {
		switch facing := n.facing[a.Addr()]; {
		case facing == n.facing[b.Addr()]:
			return 0
		case facing:
			return -1
		}
		return 1
	})
	if !slices.Equal(addrs, n.addrs) {
		n.addrs = addrs
		n.handleLocked(membership.SetAddrs{Addrs: texts(addrs)})
	}
}
