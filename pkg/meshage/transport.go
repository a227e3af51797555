package meshage

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// Transport is the network under a node. It carries bytes and proves nothing:
// who is at the other end is for the admission to find out.
type Transport interface {
	// Listen takes connections at port, 0 meaning any free one, from this host
	// only or from everywhere.
	Listen(port int, local bool) (net.Listener, error)
	// Dial connects to an address that a node listens on.
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// Addresses lists where l can be dialled, the most useful first.
	Addresses(l net.Listener) []netip.AddrPort
	// Beacons returns what carries datagrams to all nodes of the local
	// network that listen at port. target is where to, "" for everywhere.
	Beacons(port int, target string) (Beacons, error)
}

// Beacons carries datagrams of at most 1,200 bytes, unreliably.
type Beacons interface {
	Send(datagram []byte) error
	// Receive waits for one, until Close.
	Receive(buffer []byte) (n int, from netip.Addr, err error)
	Close() error
}

// TCP is the Transport between hosts: TCP, and UDP broadcasts for beacons.
type TCP struct{}

// Listen implements Transport.
func (TCP) Listen(port int, local bool) (net.Listener, error) {
	host := ""
	if local {
		host = "127.0.0.1"
	}
	return net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
}

// Dial implements Transport.
func (TCP) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", to.String())
}

// Addresses implements Transport.
func (TCP) Addresses(l net.Listener) []netip.AddrPort {
	at := addrPort(l.Addr())
	if !at.Addr().IsUnspecified() {
		return []netip.AddrPort{at}
	}
	var four, six []netip.AddrPort
	for _, ip := range hostAddresses() {
		if ip.Is4() {
			four = append(four, netip.AddrPortFrom(ip, at.Port()))
		} else {
			six = append(six, netip.AddrPortFrom(ip, at.Port()))
		}
	}
	return append(four, six...)
}

// hostAddresses lists this host's addresses that another host may dial: no
// loopback and no link-local ones.
func hostAddresses() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var list []netip.Addr
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
			list = append(list, ip.Unmap())
		}
	}
	return list
}

// addrPort returns the IP address and port of a, or the zero value.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPort{}
}

// Beacons implements Transport with UDP (RFC 919 broadcasts).
func (TCP) Beacons(port int, target string) (Beacons, error) {
	to := netip.AddrPort{}
	if target != "" && target != "255.255.255.255" {
		ip, err := netip.ParseAddr(target)
		if err != nil {
			return nil, fmt.Errorf("broadcast address: %w", err)
		}
		to = netip.AddrPortFrom(ip, uint16(port))
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	return &udpBeacons{UDPConn: c, port: uint16(port), to: to}, nil
}

type udpBeacons struct {
	*net.UDPConn
	port uint16
	to   netip.AddrPort // one address, or the zero value: all networks of this host
}

func (b *udpBeacons) Receive(buffer []byte) (int, netip.Addr, error) {
	n, from, err := b.ReadFromUDPAddrPort(buffer)
	return n, from.Addr().Unmap(), err
}

// Send sends to the broadcast address of every network: 255.255.255.255 leaves
// a host by one interface only, and by none where there is no default route.
func (b *udpBeacons) Send(datagram []byte) error {
	if b.to.IsValid() {
		_, err := b.WriteToUDPAddrPort(datagram, b.to)
		return err
	}
	targets := broadcastAddresses()
	var last error
	sent := 0
	for _, ip := range targets {
		if _, err := b.WriteToUDPAddrPort(datagram, netip.AddrPortFrom(ip, b.port)); err != nil {
			last = err
			continue
		}
		sent++
	}
	if sent > 0 {
		return nil
	}
	return last
}

// broadcastAddresses lists the directed broadcast addresses of the networks
// this host is in.
func broadcastAddresses() []netip.Addr {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var list []netip.Addr
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagBroadcast == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ip, ok := broadcastOf(a); ok {
				list = append(list, ip)
			}
		}
	}
	return list
}

func broadcastOf(a net.Addr) (netip.Addr, bool) {
	n, ok := a.(*net.IPNet)
	if !ok || n.IP.To4() == nil {
		return netip.Addr{}, false
	}
	ip, mask := n.IP.To4(), n.Mask
	if ones, _ := mask.Size(); len(mask) != net.IPv4len || ones > 30 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i := range b {
		b[i] = ip[i] | ^mask[i]
	}
	return netip.AddrFrom4(b), true
}
