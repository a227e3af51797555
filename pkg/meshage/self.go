package meshage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// errReset is what the other end of a stream within the node sees after Reset.
var errReset = errors.New("stream reset")

// selfStream is one end of a stream to the node itself.
type selfStream struct {
	*net.UnixConn
	reset *atomic.Bool // shared by both ends
	once  sync.Once
	err   error
}

func (s *selfStream) Read(b []byte) (int, error) {
	k, err := s.UnixConn.Read(b)
	if err != nil && s.reset.Load() {
		err = errReset
	}
	return k, err
}

func (s *selfStream) Close() error {
	s.once.Do(func() { s.err = s.UnixConn.Close() })
	return s.err
}

func (s *selfStream) Reset() error {
	s.reset.Store(true)
	return s.Close()
}

var _ Stream = (*selfStream)(nil)

// openSelf opens a stream to the node's own handler.
func (n *Node) openSelf(m *member, proto string) (Stream, error) {
	h := n.services.handler(proto)
	if h == nil {
		return nil, fmt.Errorf("open %s: %s: %w", proto, n.opts.Name, &remoteError{statusProtocol, "does not serve " + proto})
	}
	a, b, err := socketPair()
	if err != nil {
		return nil, err
	}
	reset := &atomic.Bool{}
	mine, theirs := &selfStream{UnixConn: a, reset: reset}, &selfStream{UnixConn: b, reset: reset}
	started := n.tasks.run(func() {
		ctx, cancel := n.scope(m)
		defer cancel()
		defer theirs.Close()
		defer context.AfterFunc(ctx, func() { _ = theirs.Close(); _ = mine.Close() })()
		h(ctx, n.opts.Name, theirs)
	})
	if !started {
		return nil, errors.Join(ErrClosed, mine.Close(), theirs.Close())
	}
	return mine, nil
}
