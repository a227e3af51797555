package meshage

import (
	"bufio"
	"context"
	"fmt"
	"sync/atomic"
)

// Call implements Mesh.
func (n *Node) Call(ctx context.Context, to, proto string, request []byte) ([]byte, error) {
	reply, err := n.call(ctx, to, proto, request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", proto, err)
	}
	return reply, nil
}

func (n *Node) call(ctx context.Context, to, proto string, request []byte) ([]byte, error) {
	if len(request) > MaxMessage {
		return nil, fmt.Errorf("%w: request of %d bytes, at most %d", ErrTooLarge, len(request), MaxMessage)
	}
	m, err := n.target(to, proto)
	if err != nil {
		return nil, err
	}
	if m.id == n.id {
		return n.callSelf(ctx, proto, request)
	}
	both, cancel := during(ctx, m)
	defer cancel()
	reply, err := n.exchange(both, m, proto, request)
	if err != nil {
		return nil, n.verdict(ctx, m, err)
	}
	return reply, nil
}

func (n *Node) exchange(ctx context.Context, m *member, proto string, request []byte) ([]byte, error) {
	s, release, err := n.outStream(ctx, m, kindCall, proto, appendPayload(nil, request))
	if err != nil {
		return nil, err
	}
	defer release()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.CloseWrite(); err != nil {
		_ = s.Reset()
		return nil, err
	}
	r := bufio.NewReader(s)
	if err = readStatus(r); err == nil {
		var reply []byte
		if reply, err = readPayload(r); err == nil {
			_ = s.Close()
			return reply, nil
		}
	}
	_ = s.Reset()
	return nil, err
}

// callSelf serves a request to the node's own name.
func (n *Node) callSelf(ctx context.Context, proto string, request []byte) ([]byte, error) {
	r := n.services.responder(proto)
	if r == nil {
		return nil, fmt.Errorf("%s: %w", n.opts.Name, &remoteError{statusProtocol, "does not answer " + proto})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	reply, err := r(ctx, n.opts.Name, append([]byte(nil), request...))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.opts.Name, err)
	}
	if len(reply) > MaxMessage {
		return nil, fmt.Errorf("%s: %w: reply of %d bytes, at most %d", n.opts.Name, ErrTooLarge, len(reply), MaxMessage)
	}
	return reply, nil
}

// CallAll implements Mesh.
func (n *Node) CallAll(ctx context.Context, to []string, proto string, request []byte) <-chan Reply {
	replies := make(chan Reply, len(to))
	left := &atomic.Int64{}
	left.Store(int64(len(to)))
	answer := func(r Reply) {
		replies <- r // there is room for all
		if left.Add(-1) == 0 {
			close(replies)
		}
	}
	for _, name := range to {
		started := n.tasks.run(func() {
			b, err := n.Call(ctx, name, proto, request)
			answer(Reply{From: name, Payload: b, Err: err})
		})
		if !started {
			answer(Reply{From: name, Err: ErrClosed})
		}
	}
	if len(to) == 0 {
		close(replies)
	}
	return replies
}
