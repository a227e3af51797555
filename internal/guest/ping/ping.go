// Package ping sends ICMP echo requests (RFC 792, RFC 4443) and measures the
// answers. It needs the right to open raw sockets.
package ping

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// Pinger asks one host.
type Pinger struct {
	Addr netip.Addr
	conn *icmp.PacketConn
	id   int
}

// Dial resolves host and makes ready to ask it. Close the result.
func Dial(ctx context.Context, host string) (*Pinger, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	p := &Pinger{Addr: addrs[0].Unmap(), id: os.Getpid()&0xfff | int(time.Now().UnixNano()&0xf)<<12}
	network, any := "ip4:icmp", "0.0.0.0"
	if p.Addr.Is6() {
		network, any = "ip6:ipv6-icmp", "::"
	}
	p.conn, err = icmp.ListenPacket(network, any)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Close releases the socket.
func (p *Pinger) Close() error { return p.conn.Close() }

// ErrTimeout says that no answer came in time.
var ErrTimeout = errors.New("no answer")

// Echo sends one request with the given sequence number and returns the time
// its answer took.
func (p *Pinger) Echo(ctx context.Context, seq int, timeout time.Duration) (time.Duration, error) {
	msg := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: p.id, Seq: seq & 0xffff, Data: make([]byte, 48)}}
	if p.Addr.Is6() {
		msg.Type = ipv6.ICMPTypeEchoRequest
	}
	packet, err := msg.Marshal(nil) // for IPv6 the kernel adds the checksum
	if err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { p.conn.SetReadDeadline(time.Now()) })
	defer stop()
	start := time.Now()
	if err := p.conn.SetReadDeadline(start.Add(timeout)); err != nil {
		return 0, err
	}
	if _, err := p.conn.WriteTo(packet, &net.IPAddr{IP: p.Addr.AsSlice(), Zone: p.Addr.Zone()}); err != nil {
		return 0, err
	}
	return p.await(ctx, start, seq&0xffff)
}

func (p *Pinger) await(ctx context.Context, start time.Time, seq int) (time.Duration, error) {
	buf := make([]byte, 1500)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, ErrTimeout
		case err != nil:
			return 0, err
		}
		if p.isReply(buf[:n], seq) {
			return time.Since(start), nil
		}
	}
}

func (p *Pinger) isReply(packet []byte, seq int) bool {
	proto := 1 // IANA protocol numbers
	if p.Addr.Is6() {
		proto = 58
	}
	msg, err := icmp.ParseMessage(proto, packet)
	if err != nil || msg.Type != ipv4.ICMPTypeEchoReply && msg.Type != ipv6.ICMPTypeEchoReply {
		return false
	}
	echo, ok := msg.Body.(*icmp.Echo)
	return ok && echo.ID == p.id && echo.Seq == seq
}
