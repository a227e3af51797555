package meshage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"minimega/pkg/meshage/membership"
)

const (
	streamProtocol = protocol.ID("/minimega/mesh/1")
	// headerTime bounds how long a new stream may take to say what it wants,
	// and knownTime how long its sender may be unknown here: news of members
	// and their streams travel by different ways.
	headerTime = 10 * time.Second
	knownTime  = 2 * time.Second
	// lostTime is how long a broken stream waits to learn whether the other
	// node has died.
	lostTime = 2500 * time.Millisecond
)

// lazyStream agrees on the protocol with the first bytes, not before them: both
// sides of an admitted connection speak it.
type lazyStream struct {
	network.Stream
	rw multistream.LazyConn
}

func (s *lazyStream) Read(b []byte) (int, error)  { return s.rw.Read(b) }
func (s *lazyStream) Write(b []byte) (int, error) { return s.rw.Write(b) }

// rawStream opens a stream to a node that is connected.
func (n *Node) rawStream(ctx context.Context, to peer.ID) (network.Stream, error) {
	s, err := n.swarm.NewStream(network.WithNoDial(ctx, "the mesh dials"), to)
	if err != nil {
		return nil, err
	}
	if err := s.SetProtocol(streamProtocol); err != nil {
		return nil, errors.Join(err, s.Reset())
	}
	return &lazyStream{s, multistream.NewMSSelect(s, streamProtocol)}, nil
}

// usage is what keeps a connection without a link.
type usage struct {
	busy int // streams of users
	last time.Time
}

func (n *Node) usageLocked(id peer.ID) *usage {
	u := n.used[id]
	if u == nil {
		u = &usage{}
		n.used[id] = u
	}
	return u
}

func (n *Node) useLocked(id peer.ID) { n.usageLocked(id).last = time.Now() }

// use counts a stream over the connection to a node until done is called.
func (n *Node) use(id peer.ID) (done func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.usageLocked(id).busy++
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		u := n.usageLocked(id)
		u.busy--
		u.last = time.Now()
	}
}

// way finds the connected node to which a stream for m goes: m itself, dialled
// if need be, or the neighbour on the way there.
func (n *Node) way(ctx context.Context, m *member) (peer.ID, error) {
	if n.connected(m.id) {
		return m.id, nil
	}
	n.mu.Lock()
	hop, routed := n.machine.NextHop(membership.ID(m.id))
	n.mu.Unlock()
	if addrs := n.addrsOf(m.id); len(addrs) > 0 && !n.dials.failedLately(m.id) {
		limit := dialTime
		if routed {
			limit = shortTime
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		err := n.reach(ctx, m.id, addrs)
		cancel()
		if err == nil {
			return m.id, nil
		}
	}
	if routed { // and the dial, if it goes on, is for the next stream
		return peer.ID(hop), nil
	}
	return "", fmt.Errorf("no way to %s", m.Name)
}

// firstHop opens a stream to the first node on the way to m. A connection that
// closes just then is no reason to give up.
func (n *Node) firstHop(ctx context.Context, m *member) (hop peer.ID, s network.Stream, err error) {
	for range 3 {
		if hop, err = n.way(ctx, m); err != nil {
			return "", nil, err
		}
		if s, err = n.rawStream(ctx, hop); err == nil {
			return hop, s, nil
		}
	}
	return "", nil, err
}

// outStream opens a stream to m and sends its header with what follows at once.
func (n *Node) outStream(ctx context.Context, m *member, kind byte, proto string, first []byte) (network.Stream, func(), error) {
	hop, s, err := n.firstHop(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	release := n.use(hop)
	h := header{kind: kind, hops: maxHops, from: n.id, to: m.id, protocol: proto}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	_, err = s.Write(append(h.append(make([]byte, 0, maxHeader+len(first))), first...))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		release()
		return nil, nil, errors.Join(err, ignore(s.Reset()))
	}
	return s, release, nil
}

// verdict says why a stream to m broke: because m has left, if that is so or
// turns out to be within a moment.
func (n *Node) verdict(ctx context.Context, m *member, err error) error {
	if err == nil {
		return nil
	}
	var remote *remoteError
	if errors.As(err, &remote) && remote.status != statusNoRoute {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	t := time.NewTimer(lostTime)
	defer t.Stop()
	select {
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ctx.Done():
		return ErrClosed
	case <-t.C:
		return fmt.Errorf("the connection to %s broke: %w", m.Name, err)
	}
}

// Open implements Mesh.
func (n *Node) Open(ctx context.Context, to, proto string) (Stream, error) {
	m, err := n.target(to, proto)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", proto, err)
	}
	if m.id == n.id {
		return n.openSelf(m, proto)
	}
	both, cancel := during(ctx, m)
	defer cancel()
	s, release, err := n.outStream(both, m, kindStream, proto, nil)
	if err == nil {
		stop := context.AfterFunc(both, func() { _ = s.Reset() })
		err = readStatus(s)
		if !stop() && err == nil {
			err = both.Err()
		}
		if err != nil {
			release()
			_ = s.Reset()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", proto, n.verdict(ctx, m, err))
	}
	return newStream(s, m.ctx, release), nil
}

// target finds the member for a request.
func (n *Node) target(to, proto string) (*member, error) {
	if n.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if len(proto) == 0 || len(proto) > 255 {
		return nil, fmt.Errorf("protocol name of %d bytes", len(proto))
	}
	return n.find(to)
}

// during is ctx that ends with the member, too.
func during(ctx context.Context, m *member) (context.Context, context.CancelFunc) {
	both, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })
	return both, func() { stop(); cancel(nil) }
}

// stream is one end of a stream to another node. It breaks when that leaves.
type stream struct {
	network.Stream
	member  context.Context
	stop    func() bool
	release func()
	once    sync.Once
}

func newStream(s network.Stream, member context.Context, release func()) *stream {
	return &stream{Stream: s, member: member, release: release,
		stop: context.AfterFunc(member, func() { _ = s.Reset() })}
}

func (s *stream) Read(b []byte) (int, error) {
	k, err := s.Stream.Read(b)
	return k, s.why(err)
}

func (s *stream) Write(b []byte) (int, error) {
	k, err := s.Stream.Write(b)
	return k, s.why(err)
}

// why finds the reason of a failure. Where the connection broke, not the stream
// alone, it may be that the other node has died: that is known in a moment.
func (s *stream) why(err error) error {
	if err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if s.member.Err() == nil && s.Conn().IsClosed() {
		t := time.NewTimer(lostTime)
		defer t.Stop()
		select {
		case <-s.member.Done():
		case <-t.C:
		}
	}
	if s.member.Err() != nil {
		return context.Cause(s.member)
	}
	return err
}

func (s *stream) done() {
	s.once.Do(func() {
		s.stop()
		s.release()
	})
}

func (s *stream) Close() error {
	s.done()
	return s.Stream.Close()
}

func (s *stream) Reset() error {
	s.done()
	return s.Stream.Reset()
}
