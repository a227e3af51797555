package vnc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Event is one input of a person at a client of a proxy.
type Event struct {
	Time    time.Time
	Client  uint64 // counts the proxy's connections from 1
	Input   Input
	Dropped uint64 // events lost so far because this subscriber was slow
}

// Proxy passes VNC connections on to one server and lets subscribers see the
// input that goes through. It adds nothing to the handshake and copies the
// server's side as it is. Three things it changes on the client's side: every
// client shares the screen, since one that does not would end all recordings;
// encodings that would hide input from it are not offered to the server; and
// clipboard text is typed into the guest, unless TypeCutText(false) is given.
//
// All methods are safe for all goroutines.
type Proxy struct {
	ln      net.Listener
	dial    func(context.Context) (net.Conn, error)
	log     *slog.Logger
	typeCut bool
	// patience is how long a server may say nothing at all.
	patience time.Duration
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup // the accept loop and every connection

	mu      sync.Mutex // guards the fields below
	closed  bool
	clients uint64
	conns   map[net.Conn]struct{}
	subs    map[*subscriber]struct{}
}

// ProxyOption changes how a Proxy works.
type ProxyOption func(*Proxy)

// TypeCutText says whether clipboard text of clients is typed into the guest
// (the default) or passed on to the server.
func TypeCutText(on bool) ProxyOption { return func(p *Proxy) { p.typeCut = on } }

// NewProxy serves ln, which it owns from then on, until Close. dial makes one
// connection to the server and must heed its context.
func NewProxy(ln net.Listener, dial func(context.Context) (net.Conn, error), log *slog.Logger, opts ...ProxyOption) *Proxy {
	p := &Proxy{ln: ln, dial: dial, log: log, typeCut: true, patience: handshakeTime,
		conns: map[net.Conn]struct{}{}, subs: map[*subscriber]struct{}{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	for _, o := range opts {
		o(p)
	}
	p.wg.Go(p.accept)
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() net.Addr { return p.ln.Addr() }

// Port is the TCP port of Addr, or 0 for a listener without one.
func (p *Proxy) Port() int {
	if a, ok := p.ln.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// Dial connects to the server itself, past the proxy: what goes through is
// seen by no subscriber.
func (p *Proxy) Dial(ctx context.Context) (net.Conn, error) { return p.dial(ctx) }

// Done is closed when Close has been called.
func (p *Proxy) Done() <-chan struct{} { return p.ctx.Done() }

// Close ends the listener and all connections, delivers what subscribers have
// not seen yet, and returns when nothing of the proxy runs any more.
func (p *Proxy) Close() error {
	p.stop()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	err := p.ln.Close()
	p.wg.Wait()
	p.mu.Lock()
	subs := p.subs
	p.subs = map[*subscriber]struct{}{}
	p.mu.Unlock()
	for s := range subs {
		s.end()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		conn, err := p.ln.Accept()
		if err == nil {
			if id, ok := p.register(conn); ok {
				p.wg.Go(func() { p.serve(conn, id) })
			}
			continue
		}
		if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		p.log.Warn("VNC proxy cannot accept a connection", "err", err)
		select { // out of file descriptors, most likely
		case <-p.ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// register makes Close end conn, too. It closes conn when the proxy is closed already.
func (p *Proxy) register(conn net.Conn) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = conn.Close()
		return 0, false
	}
	p.conns[conn] = struct{}{}
	p.clients++
	return p.clients, true
}

func (p *Proxy) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
}

// serve passes one client's connection on until either side ends.
func (p *Proxy) serve(client net.Conn, id uint64) {
	defer p.forget(client)
	log := p.log.With("client", client.RemoteAddr().String())
	server, err := p.dial(p.ctx)
	if err != nil {
		log.Warn("VNC proxy cannot reach the machine's screen", "err", err)
		return
	}
	if _, ok := p.register(server); !ok {
		return
	}
	defer p.forget(server)
	s := newSession(p, id, client, server, log)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer client.Close()
		defer server.Close()
		s.fromServer()
	})
	if err := s.fromClient(); err != nil && !ended(err) {
		log.Debug("VNC connection ended", "err", err)
	}
	_ = client.Close()
	_ = server.Close()
	wg.Wait()
	s.close()
}

// ended tells whether err is an ordinary end of a connection.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF)
}
