package meshage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// Memory is a network inside this process, for tests: many nodes, no port and
// no packet on any interface. Host makes a Transport for each node.
type Memory struct {
	mu     sync.Mutex
	hosts  map[netip.Addr]*memoryHost
	broken map[[2]netip.Addr]bool // ordered pairs that cannot hear each other
}

// NewMemory makes an empty network.
func NewMemory() *Memory {
	return &Memory{hosts: map[netip.Addr]*memoryHost{}, broken: map[[2]netip.Addr]bool{}}
}

// Host returns the network as seen from the host that has address ip.
func (m *Memory) Host(ip string) Transport {
	return &memoryHost{net: m, ip: netip.MustParseAddr(ip), ports: map[uint16]*memoryListener{}, next: 10000}
}

// Cut breaks the way between two hosts, or mends it: what is sent there is lost
// without a word, as with a cable pulled.
func (m *Memory) Cut(a, b string, broken bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken[pair(netip.MustParseAddr(a), netip.MustParseAddr(b))] = broken
}

func pair(a, b netip.Addr) [2]netip.Addr {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]netip.Addr{a, b}
}

func (m *Memory) cut(a, b netip.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken[pair(a, b)]
}

func (m *Memory) listener(at netip.AddrPort) *memoryListener {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[at.Addr()]
	if h == nil {
		return nil
	}
	return h.ports[at.Port()]
}

type memoryHost struct {
	net     *Memory
	ip      netip.Addr
	ports   map[uint16]*memoryListener // guarded by net.mu, as is all below
	next    uint16
	beacons map[*memoryBeacons]int
}

func (h *memoryHost) Listen(port int, _ bool) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if port == 0 {
		h.next++
		port = int(h.next)
	}
	if h.ports[uint16(port)] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &memoryListener{host: h, at: netip.AddrPortFrom(h.ip, uint16(port)), incoming: make(chan net.Conn, 64), done: make(chan struct{})}
	h.ports[uint16(port)] = l
	h.net.hosts[h.ip] = h
	return l, nil
}

func (h *memoryHost) Addresses(l net.Listener) []netip.AddrPort {
	return []netip.AddrPort{addrPort(l.Addr())}
}

func (h *memoryHost) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if h.net.cut(h.ip, to.Addr()) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l := h.net.listener(to)
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	h.net.mu.Lock()
	h.next++
	from := netip.AddrPortFrom(h.ip, h.next)
	h.net.mu.Unlock()
	a, b, err := socketPair()
	if err != nil {
		return nil, err
	}
	mine := &memoryConn{UnixConn: a, net: h.net, local: from, remote: to}
	theirs := &memoryConn{UnixConn: b, net: h.net, local: to, remote: from, peer: mine}
	mine.peer = theirs
	select {
	case l.incoming <- theirs:
		return mine, nil
	case <-l.done:
		err = syscall.ECONNREFUSED
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, a.Close(), b.Close())
}

// socketPair makes two ends of a connection that the kernel buffers.
func socketPair() (a, b *net.UnixConn, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err2 := net.FileConn(f)
		err = errors.Join(err, err2, f.Close())
		conns[i], _ = c.(*net.UnixConn)
	}
	if err != nil {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return conns[0], conns[1], nil
}

type memoryListener struct {
	host     *memoryHost
	at       netip.AddrPort
	incoming chan net.Conn
	done     chan struct{}
	once     sync.Once
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.host.net.mu.Lock()
		defer l.host.net.mu.Unlock()
		delete(l.host.ports, l.at.Port())
	})
	return nil
}

func (l *memoryListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

type memoryConn struct {
	*net.UnixConn
	net           *Memory
	local, remote netip.AddrPort
	peer          *memoryConn

	closed bool     // guarded by net.mu, as is ghost
	ghost  *os.File // keeps the other end of the socket open, as this one has not heard that it was closed
}

func (c *memoryConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *memoryConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *memoryConn) Write(p []byte) (int, error) {
	if c.net.cut(c.local.Addr(), c.remote.Addr()) {
		return len(p), nil // and nobody hears it
	}
	if err := c.hear(); err != nil {
		return 0, err
	}
	return c.UnixConn.Write(p)
}

// hear is how a host answers what is sent to a connection that it has closed
// while the way was broken: with a reset.
func (c *memoryConn) hear() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.ghost == nil {
		return nil
	}
	err := c.ghost.Close()
	c.ghost = nil
	return errors.Join(syscall.ECONNRESET, err)
}

// Close is not heard at the other end while the way is broken.
func (c *memoryConn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	var err error
	if c.ghost != nil {
		err, c.ghost = c.ghost.Close(), nil
	}
	if !c.closed && !c.peer.closed && c.net.broken[pair(c.local.Addr(), c.remote.Addr())] {
		c.peer.ghost, err = c.File()
	}
	c.closed = true
	return errors.Join(err, c.UnixConn.Close())
}

func (h *memoryHost) Beacons(port int, _ string) (Beacons, error) {
	b := &memoryBeacons{host: h, in: make(chan memoryDatagram, 64), done: make(chan struct{})}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.hosts[h.ip] = h
	if h.beacons == nil {
		h.beacons = map[*memoryBeacons]int{}
	}
	h.beacons[b] = port
	return b, nil
}

type memoryDatagram struct {
	from netip.Addr
	data []byte
}

type memoryBeacons struct {
	host *memoryHost
	in   chan memoryDatagram
	done chan struct{}
	once sync.Once
}

// Send reaches every host but this one.
func (b *memoryBeacons) Send(datagram []byte) error {
	m := b.host.net
	m.mu.Lock()
	defer m.mu.Unlock()
	for ip, h := range m.hosts {
		if ip == b.host.ip || m.broken[pair(ip, b.host.ip)] {
			continue
		}
		for other := range h.beacons {
			select {
			case other.in <- memoryDatagram{b.host.ip, append([]byte(nil), datagram...)}:
			default: // lost, as datagrams are
			}
		}
	}
	return nil
}

func (b *memoryBeacons) Receive(buffer []byte) (int, netip.Addr, error) {
	select {
	case d := <-b.in:
		return copy(buffer, d.data), d.from, nil
	case <-b.done:
		return 0, netip.Addr{}, net.ErrClosed
	}
}

func (b *memoryBeacons) Close() error {
	b.once.Do(func() {
		close(b.done)
		b.host.net.mu.Lock()
		defer b.host.net.mu.Unlock()
		delete(b.host.beacons, b)
	})
	return nil
}
