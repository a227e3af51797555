package meshage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"minimega/pkg/meshage/membership"
)

const (
	dialTime  = 5 * time.Second        // for a link
	shortTime = 150 * time.Millisecond // for a stream, where there is another way
	stagger   = 100 * time.Millisecond // between the addresses of one node
	failTime  = 60 * time.Second       // how long a failure is remembered
	maxDials  = 16                     // at once
)

// dials keeps connections from being made twice at once, and failures in mind.
type dials struct {
	mu      sync.Mutex
	running map[peer.ID]*dialling
	failed  map[peer.ID]time.Time
	slots   chan struct{}
}

type dialling struct {
	done chan struct{}
	err  error
}

func (d *dials) init() {
	d.running, d.failed, d.slots = map[peer.ID]*dialling{}, map[peer.ID]time.Time{}, make(chan struct{}, maxDials)
}

func (d *dials) forget(id peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.failed, id)
}

func (d *dials) failedLately(id peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.failed[id]
	return ok && time.Since(at) < failTime
}

// begin returns the dial to id that is running, or a new one that is the
// caller's to make and to end.
func (d *dials) begin(id peer.ID) (run *dialling, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.running[id]; r != nil {
		return r, false
	}
	r := &dialling{done: make(chan struct{})}
	d.running[id] = r
	return r, true
}

func (d *dials) end(id peer.ID, r *dialling, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, id)
	delete(d.failed, id)
	if err != nil {
		d.failed[id] = time.Now()
	}
	r.err = err
	close(r.done)
}

// dialLink answers membership.Dial.
func (n *Node) dialLink(id peer.ID, addrs []string) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTime)
	defer cancel()
	err := n.reach(ctx, id, addrs)
	if err == nil {
		err = n.openLink(ctx, id)
	}
	if err != nil {
		n.log.Debug("no link", "peer", n.nameOf(id), "addresses", addrs, "err", err)
		n.handle(membership.DialFailed{ID: membership.ID(id)})
	}
}

// connected reports whether there is a connection to a node.
func (n *Node) connected(id peer.ID) bool {
	return n.swarm.Connectedness(id) == network.Connected
}

// reach makes a connection to a node, unless there is one.
func (n *Node) reach(ctx context.Context, id peer.ID, addrs []string) error {
	if n.connected(id) {
		return nil
	}
	run, mine := n.dials.begin(id)
	if mine {
		started := n.tasks.run(func() {
			ctx, cancel := context.WithTimeout(n.ctx, dialTime)
			defer cancel()
			n.dials.end(id, run, n.connectAny(ctx, id, addrs))
		})
		if !started {
			n.dials.end(id, run, ErrClosed)
		}
	}
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// connectAny tries the addresses of one node, a moment apart (RFC 8305).
func (n *Node) connectAny(ctx context.Context, id peer.ID, addrs []string) error {
	select {
	case n.dials.slots <- struct{}{}:
		defer func() { <-n.dials.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.connected(id) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(addrs))
	tried := 0
	for i, a := range addrs {
		ap, err := netip.ParseAddrPort(a)
		if err != nil {
			continue
		}
		started := n.tasks.run(func() {
			if !pause(ctx, time.Duration(i)*stagger) {
				results <- ctx.Err()
				return
			}
			_, err := n.connect(ctx, ap, id)
			results <- err
		})
		if started {
			tried++
		}
	}
	err := errors.New("no address known")
	for range tried {
		if err = <-results; err == nil {
			return nil
		}
	}
	return err
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connect makes a connection to whoever listens at an address, or to want only,
// and returns who it is.
func (n *Node) connect(ctx context.Context, to netip.AddrPort, want peer.ID) (peer.ID, error) {
	c, err := n.opts.Transport.Dial(ctx, to)
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	m, err := n.admitOut(ctx, c, want)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return "", errors.Join(err, ignore(c.Close()))
	}
	if err := n.source.hand(ctx, m); err != nil {
		return "", err
	}
	select {
	case <-m.up:
		return m.RemotePeer(), nil
	case <-ctx.Done():
		return "", ctx.Err()
	case <-n.ctx.Done():
		return "", ErrClosed
	}
}

// ignore is for the errors of closing what has failed already.
func ignore(error) error { return nil }

func (n *Node) admitOut(ctx context.Context, c net.Conn, want peer.ID) (*muxed, error) {
	a, err := n.admission.client(ctx, c)
	if err != nil {
		return nil, err
	}
	// Only now: a socket that nobody has accepted yet has no owner.
	if n.opts.local() {
		if err := sameOwner(c); err != nil {
			return nil, err
		}
	}
	if want != "" && a.peer != want {
		return nil, fmt.Errorf("another node is there now: %s", a.peer)
	}
	return n.source.mux(n.id, a, false)
}

// accept takes connections until the listener closes.
func (n *Node) accept() {
	for {
		c, err := n.listener.Accept()
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			n.log.Warn("accept", "err", err) // no descriptors left, as a rule
			if !pause(n.ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		n.gate.enter(c)
		if !n.tasks.run(func() { n.admitIn(c) }) {
			_ = c.Close()
		}
	}
}

// admitIn takes in one connection, or closes it.
func (n *Node) admitIn(c net.Conn) {
	stop := context.AfterFunc(n.ctx, func() { _ = c.Close() })
	defer stop()
	err := n.admission.strangers(c)
	n.gate.leave(c)
	if err == nil {
		err = n.handshakeIn(c)
	}
	if err != nil {
		n.log.Debug("connection refused", "from", c.RemoteAddr(), "err", err)
		_ = c.Close()
	}
}

func (n *Node) handshakeIn(c net.Conn) error {
	if n.opts.local() {
		if err := sameOwner(c); err != nil {
			return err
		}
	}
	if !n.gate.begin(c) {
		return errors.New("too many handshakes")
	}
	a, err := n.admission.server(n.ctx, c)
	n.gate.end(c, err != nil && !errors.Is(err, errSelf) && !errors.Is(err, errOtherMesh))
	if err != nil {
		return err
	}
	m, err := n.source.mux(n.id, a, true)
	if err != nil {
		return err
	}
	return n.source.hand(n.ctx, m)
}

// Dial makes a lasting link to the node at an address, "host" or "host:port",
// and waits until that is a member. host may be the name of a member.
func (n *Node) Dial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTime)
	defer cancel()
	to, err := n.lookUp(ctx, address)
	if err != nil {
		return fmt.Errorf("dial %s: %w", address, err)
	}
	var id peer.ID
	for _, ap := range to {
		if id, err = n.connect(ctx, ap, ""); err == nil {
			err = n.pin(ctx, id, ap)
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("dial %s: %w", address, reason(err))
}

// lookUp finds the addresses that a person means.
func (n *Node) lookUp(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, port := address, DefaultPort
	if n.opts.Port != 0 {
		port = n.opts.Port
	}
	if h, p, err := net.SplitHostPort(address); err == nil {
		number, err := strconv.ParseUint(p, 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("%q is not a port", p)
		}
		host, port = h, int(number)
	} else if m, err := n.find(address); err == nil && m.id != n.id {
		return parseAddrs(n.addrsOf(m.id)), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), uint16(port))}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("%w: give its IP address", err)
	}
	var list []netip.AddrPort
	for _, ip := range ips {
		list = append(list, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return list, nil
}

func parseAddrs(texts []string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, t := range texts {
		if ap, err := netip.ParseAddrPort(t); err == nil {
			list = append(list, ap)
		}
	}
	return list
}

// pin asks for a link to a connected node and waits for its membership.
func (n *Node) pin(ctx context.Context, id peer.ID, at netip.AddrPort) error {
	joined := make(chan struct{}, 1)
	stop := n.Watch(func(Event) {
		if n.members.get(id) != nil {
			select {
			case joined <- struct{}{}:
			default:
			}
		}
	})
	defer stop()
	n.handle(membership.Pin{ID: membership.ID(id), Addrs: []string{at.String()}})
	select {
	case <-joined:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("connected, but it did not become a member: %w", ctx.Err())
	case <-n.ctx.Done():
		return ErrClosed
	}
}

// reason says what a person can do about a failed dial.
func reason(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("refused: no minimega listens there: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("no answer: %w", err)
	}
	return err
}

// Hangup ends the link to a neighbour. Neither side seeks the other for a while.
func (n *Node) Hangup(name string) error {
	m, err := n.find(name)
	if err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[m.id] == nil {
		return fmt.Errorf("hang up: there is no link to %s; it is reached through others", name)
	}
	n.handleLocked(membership.Hangup{ID: membership.ID(m.id)})
	return nil
}
