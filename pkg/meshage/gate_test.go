package meshage

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

// A crowd from one address loses its oldest; others stay.
func TestGateKeepsOthersIn(t *testing.T) {
	g := newGate()
	other := &fakeConn{from: "10.0.0.2:1"}
	g.enter(other)
	var crowd []*fakeConn
	for range maxStrangersPerHost + 5 {
		c := &fakeConn{from: "10.0.0.1:1"}
		crowd = append(crowd, c)
		g.enter(c)
		for _, old := range crowd {
			if old.closed {
				g.leave(old)
			}
		}
	}
	if other.closed {
		t.Error("another host's connection was closed")
	}
	for i, c := range crowd {
		if c.closed != (i < 5) {
			t.Errorf("connection %d closed: %v", i, c.closed)
		}
	}
}

func TestGateFailures(t *testing.T) {
	g := newGate()
	bad, good := &fakeConn{from: "[2001:db8::1]:1"}, &fakeConn{from: "[2001:db8:0:1::1]:1"}
	for range maxFailures {
		if !g.begin(bad) {
			t.Fatal("closed too early")
		}
		g.end(bad, true)
	}
	if g.begin(&fakeConn{from: "[2001:db8::2]:1"}) {
		t.Error("a network that only fails may go on")
	}
	if !g.begin(good) {
		t.Error("another network may not")
	}
	g.failures[hostOf(bad)] = failure{maxFailures, time.Now().Add(-2 * time.Second)}
	if !g.begin(bad) {
		t.Error("failures are never forgotten")
	}
}
