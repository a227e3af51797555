package meshage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"minimega/pkg/meshage/membership"
)

// services is who serves what on this node.
type services struct {
	mu         sync.Mutex
	handlers   map[string]Handler
	responders map[string]Responder
	receivers  map[string]Receiver
}

func newServices() services {
	return services{handlers: map[string]Handler{}, responders: map[string]Responder{}, receivers: map[string]Receiver{}}
}

// Handle implements Mesh.
func (n *Node) Handle(proto string, h Handler) {
	n.services.mu.Lock()
	defer n.services.mu.Unlock()
	n.services.handlers[proto] = h
}

// Respond implements Mesh.
func (n *Node) Respond(proto string, r Responder) {
	n.services.mu.Lock()
	defer n.services.mu.Unlock()
	n.services.responders[proto] = r
}

// Subscribe implements Mesh.
func (n *Node) Subscribe(topic string, r Receiver) {
	n.services.mu.Lock()
	defer n.services.mu.Unlock()
	n.services.receivers[topic] = r
}

func (s *services) handler(proto string) Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handlers[proto]
}

func (s *services) responder(proto string) Responder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.responders[proto]
}

func (s *services) receiver(topic string) Receiver {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.receivers[topic]
}

// serve takes a stream that a connected node has opened. It runs in a goroutine
// of the swarm, whose Close waits for it.
func (n *Node) serve(s network.Stream) {
	_ = s.SetDeadline(time.Now().Add(headerTime))
	h, err := readHeader(s)
	if err != nil {
		_ = s.Reset()
		return
	}
	if h.kind == kindLink {
		n.serveLink(s)
		return
	}
	release := n.use(s.Conn().RemotePeer())
	defer release()
	_ = s.SetDeadline(time.Time{})
	if h.to != n.id {
		n.pass(s, h)
		return
	}
	m := n.known(h.from)
	if m == nil {
		refuse(s, statusNoRoute, fmt.Sprintf("%s does not know the sender", n.opts.Name))
		return
	}
	if h.kind == kindCall {
		n.respond(s, m, h.protocol)
	} else {
		n.handleStream(s, m, h.protocol)
	}
}

// refuse answers with an error. A sender that is still writing must not see a
// broken stream before it: what it writes is read and dropped for a while.
func refuse(s network.Stream, status byte, text string) {
	_ = s.SetDeadline(time.Now().Add(headerTime))
	_, err := s.Write(appendStatus(nil, status, text))
	if err == nil {
		err = s.CloseWrite()
	}
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(s, MaxMessage))
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// known returns the member who opened a stream, and waits a moment for it.
func (n *Node) known(id peer.ID) *member {
	if m := n.members.get(id); m != nil {
		return m
	}
	found := make(chan *member, 1)
	stop := n.Watch(func(Event) {
		if m := n.members.get(id); m != nil {
			select {
			case found <- m:
			default:
			}
		}
	})
	defer stop()
	t := time.NewTimer(knownTime)
	defer t.Stop()
	select {
	case m := <-found:
		return m
	case <-t.C:
	case <-n.ctx.Done():
	}
	return nil
}

// scope is the context for serving a member: it ends with both.
func (n *Node) scope(m *member) (context.Context, context.CancelFunc) {
	return during(n.ctx, m)
}

func (n *Node) handleStream(s network.Stream, m *member, proto string) {
	h := n.services.handler(proto)
	if h == nil {
		refuse(s, statusProtocol, "does not serve "+proto)
		return
	}
	if _, err := s.Write(appendStatus(nil, statusOK, "")); err != nil {
		_ = s.Reset()
		return
	}
	ctx, cancel := n.scope(m)
	defer cancel()
	st := newStream(s, m.ctx, func() {})
	defer st.Close()
	h(ctx, m.Name, st)
}

func (n *Node) respond(s network.Stream, m *member, proto string) {
	r := n.services.responder(proto)
	if r == nil {
		refuse(s, statusProtocol, "does not answer "+proto)
		return
	}
	_ = s.SetReadDeadline(time.Now().Add(time.Minute))
	request, err := readPayload(bufio.NewReader(s))
	if errors.Is(err, ErrTooLarge) {
		refuse(s, statusTooLarge, err.Error())
		return
	}
	if err != nil {
		_ = s.Reset()
		return
	}
	_ = s.SetReadDeadline(time.Time{})
	ctx, cancel := n.scope(m)
	defer cancel()
	watched := n.tasks.run(func() { // the caller gives up by breaking the stream
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			cancel()
		}
	})
	if !watched {
		cancel()
	}
	reply, err := r(ctx, m.Name, request)
	if err == nil && len(reply) > MaxMessage {
		err = fmt.Errorf("%w: reply of %d bytes, at most %d", ErrTooLarge, len(reply), MaxMessage)
	}
	var answer []byte
	switch {
	case errors.Is(err, ErrTooLarge):
		answer = appendStatus(nil, statusTooLarge, err.Error())
	case err != nil:
		answer = appendStatus(nil, statusFailed, err.Error())
	default:
		answer = appendPayload(appendStatus(make([]byte, 0, len(reply)+16), statusOK, ""), reply)
	}
	if _, err := s.Write(answer); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// pass carries a stream on towards its end.
func (n *Node) pass(s network.Stream, h *header) {
	hop, err := n.onward(s.Conn().RemotePeer(), h)
	if err != nil {
		refuse(s, statusNoRoute, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, headerTime)
	next, err := n.rawStream(ctx, hop)
	cancel()
	if err == nil {
		h.hops--
		_, err = next.Write(h.append(nil))
	}
	if err != nil {
		refuse(s, statusNoRoute, fmt.Sprintf("%s cannot pass it on: %v", n.opts.Name, err))
		return
	}
	release := n.use(hop)
	defer release()
	var both sync.WaitGroup
	both.Go(func() { splice(next, s) })
	splice(s, next)
	both.Wait()
}

func (n *Node) onward(from peer.ID, h *header) (peer.ID, error) {
	if h.hops == 0 {
		return "", fmt.Errorf("too many nodes on the way, at %s", n.opts.Name)
	}
	if n.connected(h.to) {
		return h.to, nil
	}
	n.mu.Lock()
	hop, ok := n.machine.NextHop(membership.ID(h.to))
	n.mu.Unlock()
	if !ok || peer.ID(hop) == from {
		return "", fmt.Errorf("%s knows no way on", n.opts.Name)
	}
	return peer.ID(hop), nil
}

// splice copies one direction to its end; a break goes on to both sides.
func splice(to, from network.Stream) {
	buffer := make([]byte, 64<<10)
	if _, err := io.CopyBuffer(plainWriter{to}, plainReader{from}, buffer); err != nil {
		_ = to.Reset()
		_ = from.Reset()
		return
	}
	_ = to.CloseWrite()
}

// plainWriter and plainReader keep io.Copy from finding another way than the
// buffer it was given.
type (
	plainWriter struct{ io.Writer }
	plainReader struct{ io.Reader }
)
