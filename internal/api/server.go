package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// lastWrite is how long a client may take for what it is still sent when the
// server closes.
const lastWrite = time.Second

// errClosing is the cause of what ends because the server closes.
var errClosing = errors.New("minimega is shutting down")

// Server answers the clients of a unix socket. Each connection handles its
// requests one after another; connections do not wait for each other.
type Server struct {
	router *Router
	pipes  PipeHandler
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // connections and accept loops

	mu        sync.Mutex // guards the fields below
	closed    bool
	listeners map[*net.UnixListener]bool
	conns     map[*conn]bool
}

// NewServer makes a server in front of router. pipes may be nil: then a
// client that asks for a pipe gets an error.
func NewServer(router *Router, pipes PipeHandler, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Server{
		router: router, pipes: pipes, log: log, ctx: ctx, cancel: cancel,
		listeners: map[*net.UnixListener]bool{}, conns: map[*conn]bool{},
	}
}

// Serve answers clients of l until Close, and then returns nil. It closes l.
func (s *Server) Serve(l *net.UnixListener) error {
	if !s.enter(l) {
		return errors.Join(errClosing, l.Close())
	}
	defer s.leave(l)
	var retry time.Duration
	for {
		nc, err := l.AcceptUnix()
		switch {
		case err == nil:
			retry = 0
			s.admit(nc)
		case s.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		default:
			// Out of descriptors, most likely: clients will leave.
			retry = min(max(2*retry, 5*time.Millisecond), time.Second)
			s.log.Warn("cannot accept a client", "err", err, "again in", retry)
			s.pause(retry)
		}
	}
}

// Close stops accepting, cancels what runs, and waits until every client has
// its answer and every goroutine has ended. When ctx ends first it cuts the
// connections, and names the commands that still do not end.
func (s *Server) Close(ctx context.Context) error {
	s.stop()
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cut()
	t := time.NewTimer(lastWrite)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("commands do not end: %q", s.running())
	}
}

// stop begins the end: no new clients, no new requests, contexts cancelled.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		c.finish()
	}
	s.cancel(errClosing) // only now: what ends by it is a connection's last command
	for l := range s.listeners {
		l.Close() // Serve sees and returns the outcome
	}
}

// cut closes all connections, whatever they do.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.nc.Close() // the connection's own Close reports
	}
}

// running lists the commands that run now.
func (s *Server) running() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for c := range s.conns {
		if line := c.line(); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s *Server) enter(l *net.UnixListener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[l] = true
	s.wg.Add(1)
	return true
}

func (s *Server) leave(l *net.UnixListener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
	l.Close() // may be closed already
	s.wg.Done()
}

// admit starts the goroutine of a new client.
func (s *Server) admit(nc *net.UnixConn) {
	c, err := newConn(s, nc)
	if err != nil {
		s.log.Warn("cannot serve a client", "err", err)
		nc.Close()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.cancel(errClosing)
		nc.Close()
		return
	}
	s.conns[c] = true
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}

// pause waits, or until the server closes.
func (s *Server) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}
