package meshtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"minimega/pkg/meshage"
)

// window is how much one direction of a stream holds before its writer waits.
const window = 256 << 10

// half is one direction of a stream.
type half struct {
	mu     sync.Mutex // guards the fields below
	cond   sync.Cond
	data   []byte
	closed bool  // its writer has ended it
	err    error // it is broken
	reads  alarm // of the end that reads
	writes alarm // of the end that writes
}

func newHalf() *half {
	h := &half{}
	h.cond.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.data) == 0 {
		switch {
		case h.err != nil:
			return 0, h.err
		case h.closed:
			return 0, io.EOF
		case h.reads.late():
			return 0, os.ErrDeadlineExceeded
		}
		h.cond.Wait()
	}
	n := copy(p, h.data)
	h.data = h.data[:copy(h.data, h.data[n:])]
	h.cond.Broadcast()
	return n, nil
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(p) > 0 {
		switch {
		case h.err != nil:
			return n, h.err
		case h.closed:
			return n, net.ErrClosed
		case h.writes.late():
			return n, os.ErrDeadlineExceeded
		}
		if h.data == nil {
			h.data = make([]byte, 0, min(window, max(len(p), 4<<10)))
		}
		if room := window - len(h.data); room > 0 {
			k := min(room, len(p))
			h.data = append(h.data, p[:k]...)
			p, n = p[k:], n+k
			h.cond.Broadcast()
			continue
		}
		h.cond.Wait()
	}
	return n, nil
}

// alarm is the deadline of one end.
type alarm struct {
	at    time.Time
	timer *time.Timer
}

func (a *alarm) late() bool { return !a.at.IsZero() && !time.Now().Before(a.at) }

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// wake lets waiters look again. It takes the lock so that none is between its
// look and its wait.
func (h *half) wake() { h.mu.Lock(); h.cond.Broadcast(); h.mu.Unlock() }

// end closes the direction; a non-nil err breaks it.
func (h *half) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if err != nil && h.err == nil {
		h.err, h.data = err, nil
	}
	h.reads.stop()
	h.writes.stop()
	h.cond.Broadcast()
}

// set changes a deadline of h.
func (h *half) set(a *alarm, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.stop()
	a.at = t
	if !t.IsZero() {
		a.timer = time.AfterFunc(time.Until(t), h.wake)
	}
	h.cond.Broadcast()
}

// stream is one end of a connection.
type stream struct{ in, out *half }

func newStream() (a, b *stream) {
	x, y := newHalf(), newHalf()
	return &stream{x, y}, &stream{y, x}
}

func (s *stream) Read(p []byte) (int, error)  { return s.in.read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.out.write(p) }
func (s *stream) CloseWrite() error           { s.out.end(nil); return nil }

// Close ends what is sent; the other side may read what is under way, but has
// nobody to write to.
func (s *stream) Close() error {
	s.out.end(nil)
	s.in.end(net.ErrClosed)
	return nil
}

var errReset = errors.New("stream reset")

func (s *stream) Reset() error { s.fail(errReset); return nil }

func (s *stream) fail(err error) {
	s.out.end(err)
	s.in.end(err)
}

func (s *stream) SetDeadline(t time.Time) error {
	s.in.set(&s.in.reads, t)
	s.out.set(&s.out.writes, t)
	return nil
}

// A request and its reply on a stream: a byte 0 or 1 for success or failure
// before the reply.

func ask(ctx context.Context, s meshage.Stream, request []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	defer s.Close()
	if _, err := s.Write(request); err != nil {
		return nil, err
	}
	if err := s.CloseWrite(); err != nil {
		return nil, err
	}
	reply, err := io.ReadAll(s)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	case len(reply) == 0:
		return nil, meshage.ErrLeft
	case reply[0] != 0:
		return nil, errors.New(string(reply[1:]))
	}
	return reply[1:], nil
}

func answer(ctx context.Context, from string, s meshage.Stream, r meshage.Responder) {
	request, err := io.ReadAll(s)
	if err != nil {
		return
	}
	reply, err := r(ctx, from, request)
	if err != nil {
		_, _ = s.Write(append([]byte{1}, err.Error()...))
		return
	}
	_, _ = s.Write(append([]byte{0}, reply...))
}
