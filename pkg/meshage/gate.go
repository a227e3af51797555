package meshage

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits on those who have not proved anything yet.
const (
	maxStrangers        = 256 // connections before their knock
	maxStrangersPerHost = 64
	maxHandshakes       = 64 // connections between knock and proof
	maxFailures         = 20 // failed handshakes of one host, with one more each second
	maxFailing          = 4096
)

// gate bounds what strangers cost. When there are too many, the oldest goes:
// who knows the key has knocked long since.
type gate struct {
	mu         sync.Mutex
	strangers  []stranger // in order of arrival
	handshakes int
	failures   map[netip.Addr]failure
}

type stranger struct {
	host netip.Addr
	conn net.Conn
}

type failure struct {
	count float64
	at    time.Time
}

func newGate() *gate { return &gate{failures: map[netip.Addr]failure{}} }

// hostOf is what limits count by: an IPv4 address, or an IPv6 network of 64 bits,
// which is what one host is given.
func hostOf(c net.Conn) netip.Addr {
	ip := addrPort(c.RemoteAddr()).Addr()
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return ip
}

// enter lets a new connection wait for its knock, at the cost of another one if
// there are too many.
func (g *gate) enter(c net.Conn) {
	s := stranger{hostOf(c), c}
	g.mu.Lock()
	g.strangers = append(g.strangers, s)
	out := g.surplusLocked(s.host)
	g.mu.Unlock()
	if out != nil {
		_ = out.Close() // its reader sees it and leaves
	}
}

func (g *gate) surplusLocked(host netip.Addr) net.Conn {
	oldest, of := -1, 0
	for i, s := range g.strangers {
		if s.host == host {
			if of++; oldest < 0 {
				oldest = i
			}
		}
	}
	switch {
	case of > maxStrangersPerHost:
	case len(g.strangers) > maxStrangers:
		oldest = 0
	default:
		return nil
	}
	return g.strangers[oldest].conn
}

// leave ends what enter began.
func (g *gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range g.strangers {
		if s.conn == c {
			g.strangers = append(g.strangers[:i], g.strangers[i+1:]...)
			return
		}
	}
}

// begin asks to start a handshake; end must follow if it may.
func (g *gate) begin(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.handshakes >= maxHandshakes || g.debtLocked(hostOf(c)) > maxFailures-1 {
		return false
	}
	g.handshakes++
	return true
}

func (g *gate) end(c net.Conn, failed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.handshakes--
	if !failed {
		return
	}
	if len(g.failures) >= maxFailing {
		clear(g.failures)
	}
	host := hostOf(c)
	g.failures[host] = failure{g.debtLocked(host) + 1, time.Now()}
}

// debtLocked is how many failures of a host count still.
func (g *gate) debtLocked(host netip.Addr) float64 {
	f, ok := g.failures[host]
	if !ok {
		return 0
	}
	left := f.count - time.Since(f.at).Seconds()
	if left <= 0 {
		delete(g.failures, host)
		return 0
	}
	return left
}
