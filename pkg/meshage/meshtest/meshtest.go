// Package meshtest is a mesh inside one process, for tests and simulations of
// what is built on package meshage: no network, no time but that of the
// scheduler, and nodes that die on request.
package meshtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"minimega/pkg/meshage"
)

// Hub connects nodes. Each reaches each, unless it was cut off.
type Hub struct {
	mu    sync.Mutex // guards the fields below, and those of nodes
	nodes map[string]*Node
}

// NewHub returns a hub without nodes.
func NewHub() *Hub { return &Hub{nodes: map[string]*Node{}} }

// Node is one member; it implements meshage.Mesh.
type Node struct {
	hub    *Hub
	name   string
	ctx    context.Context
	cancel context.CancelFunc
	serve  sync.WaitGroup

	handlers   map[string]meshage.Handler
	receivers  map[string]meshage.Receiver
	watchers   map[int]func(meshage.Event)
	watched    int
	hung       bool
	streams    map[*stream]bool
	watchOrder sync.Mutex // one event at a time; never taken with hub.mu held
}

// Join adds a node.
func (h *Hub) Join(name string) *Node {
	n := &Node{hub: h, name: name, handlers: map[string]meshage.Handler{}, receivers: map[string]meshage.Receiver{},
		watchers: map[int]func(meshage.Event){}, streams: map[*stream]bool{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	h.mu.Lock()
	h.nodes[name] = n
	h.mu.Unlock()
	h.tell(meshage.Event{Member: member(name)})
	return n
}

// Kill removes a node as a crash would: its streams break, the others see it leave.
func (h *Hub) Kill(name string) {
	h.mu.Lock()
	n := h.nodes[name]
	delete(h.nodes, name)
	var broken []*stream
	if n != nil {
		broken = slices.Collect(maps.Keys(n.streams))
	}
	h.mu.Unlock()
	if n == nil {
		return
	}
	n.cancel()
	for _, s := range broken {
		s.fail(meshage.ErrLeft)
	}
	n.serve.Wait()
	h.tell(meshage.Event{Member: member(name), Left: true})
}

// Hang makes a node accept streams and never serve them.
func (h *Hub) Hang(name string) { h.mu.Lock(); h.nodes[name].hung = true; h.mu.Unlock() }

// Close kills all nodes.
func (h *Hub) Close() {
	h.mu.Lock()
	names := slices.Collect(maps.Keys(h.nodes))
	h.mu.Unlock()
	for _, name := range names {
		h.Kill(name)
	}
}

func member(name string) meshage.Member {
	return meshage.Member{Name: name, Address: "127.0.0.1", Joined: time.Time{}}
}

func (h *Hub) tell(e meshage.Event) {
	h.mu.Lock()
	nodes := slices.Collect(maps.Values(h.nodes))
	h.mu.Unlock()
	for _, n := range nodes {
		n.watchOrder.Lock()
		h.mu.Lock()
		watchers := slices.Collect(maps.Values(n.watchers))
		h.mu.Unlock()
		for _, f := range watchers {
			f(e)
		}
		n.watchOrder.Unlock()
	}
}

// Name returns the node's name.
func (n *Node) Name() string { return n.name }

// Members lists the nodes of the hub by name.
func (n *Node) Members() []meshage.Member {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	var list []meshage.Member
	for _, name := range slices.Sorted(maps.Keys(n.hub.nodes)) {
		list = append(list, member(name))
	}
	return list
}

// Watch tells of who comes and goes, first of all who is there.
func (n *Node) Watch(f func(meshage.Event)) (stop func()) {
	n.watchOrder.Lock()
	defer n.watchOrder.Unlock()
	present := n.Members()
	n.hub.mu.Lock()
	id := n.watched
	n.watched++
	n.watchers[id] = f
	n.hub.mu.Unlock()
	for _, m := range present {
		f(meshage.Event{Member: m})
	}
	return func() { n.hub.mu.Lock(); delete(n.watchers, id); n.hub.mu.Unlock() }
}

// Handle serves streams.
func (n *Node) Handle(protocol string, h meshage.Handler) {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	n.handlers[protocol] = h
}

// Respond serves requests.
func (n *Node) Respond(protocol string, r meshage.Responder) {
	n.Handle(protocol, func(ctx context.Context, from string, s meshage.Stream) { answer(ctx, from, s, r) })
}

// Subscribe takes broadcasts.
func (n *Node) Subscribe(topic string, r meshage.Receiver) {
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	n.receivers[topic] = r
}

// Open connects to another node's handler.
func (n *Node) Open(ctx context.Context, to, protocol string) (meshage.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.hub.mu.Lock()
	peer := n.hub.nodes[to]
	switch {
	case n.hub.nodes[n.name] != n:
		n.hub.mu.Unlock()
		return nil, meshage.ErrClosed
	case peer == nil:
		n.hub.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", to, meshage.ErrUnknown)
	}
	h := peer.handlers[protocol]
	if h == nil && !peer.hung {
		n.hub.mu.Unlock()
		return nil, fmt.Errorf("%w: %s does not serve %s", meshage.ErrProtocol, to, protocol)
	}
	here, there := newStream()
	n.streams[here], peer.streams[there] = true, true
	hung := peer.hung
	if !hung {
		peer.serve.Add(1)
	}
	n.hub.mu.Unlock()
	if !hung {
		go peer.run(h, n.name, there)
	}
	return here, nil
}

// run serves one stream.
func (n *Node) run(h meshage.Handler, from string, s *stream) {
	defer n.serve.Done()
	h(n.ctx, from, s)
	s.Close()
	n.hub.mu.Lock()
	delete(n.streams, s)
	n.hub.mu.Unlock()
}

// Call asks one node.
func (n *Node) Call(ctx context.Context, to, protocol string, request []byte) ([]byte, error) {
	s, err := n.Open(ctx, to, protocol)
	if err != nil {
		return nil, err
	}
	return ask(ctx, s, request)
}

// CallAll asks several nodes at once.
func (n *Node) CallAll(ctx context.Context, to []string, protocol string, request []byte) <-chan meshage.Reply {
	replies := make(chan meshage.Reply, len(to))
	var asked sync.WaitGroup
	for _, name := range to {
		asked.Go(func() {
			payload, err := n.Call(ctx, name, protocol, request)
			replies <- meshage.Reply{From: name, Payload: payload, Err: err}
		})
	}
	go func() { asked.Wait(); close(replies) }()
	return replies
}

// Broadcast reaches all other nodes before it returns.
func (n *Node) Broadcast(_ context.Context, topic string, payload []byte) error {
	n.hub.mu.Lock()
	var receivers []meshage.Receiver
	for name, peer := range n.hub.nodes {
		if r := peer.receivers[topic]; r != nil && name != n.name {
			receivers = append(receivers, r)
		}
	}
	n.hub.mu.Unlock()
	for _, r := range receivers {
		r(n.name, slices.Clone(payload))
	}
	return nil
}

var _ meshage.Mesh = (*Node)(nil)
