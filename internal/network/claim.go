package network

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ethHeader  = 14
	arpLen     = 28
	ip6Header  = 40
	ndLen      = 24 // of a neighbour solicitation or advertisement without options
	ndSolicit  = 135
	ndAdvert   = 136
	ndHopLimit = 255 // RFC 4861, 7.1: anything else came through a router
)

// claim reads an Ethernet frame in which a NIC says "this address is mine", and
// returns who says it. It takes ARP over Ethernet and IPv4, and neighbour
// discovery.
func claim(frame []byte) (mac [6]byte, addr netip.Addr, ok bool) {
	if len(frame) < ethHeader {
		return mac, addr, false
	}
	mac = [6]byte(frame[6:12])
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		addr, ok = claimARP(frame[ethHeader:], mac)
	case unix.ETH_P_IPV6:
		addr, ok = claimND(frame[ethHeader:])
	}
	if !ok || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() || addr == limitedBroadcast {
		return mac, addr, false
	}
	return mac, addr, true
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// claimARP returns the sender of a request or reply, which must be the sender
// of the frame.
func claimARP(b []byte, mac [6]byte) (addr netip.Addr, ok bool) {
	const header = "\x00\x01\x08\x00\x06\x04" // Ethernet, IPv4, their lengths
	if len(b) < arpLen || string(b[:6]) != header || [6]byte(b[8:14]) != mac {
		return addr, false
	}
	return netip.AddrFrom4([4]byte(b[14:18])), true
}

// claimND returns the sender of a solicitation, or the target of an
// advertisement or of the solicitation by which a NIC tries out an address.
func claimND(b []byte) (addr netip.Addr, ok bool) {
	if len(b) < ip6Header+ndLen || b[0]>>4 != 6 || b[6] != unix.IPPROTO_ICMPV6 || b[7] != ndHopLimit {
		return addr, false
	}
	source := netip.AddrFrom16([16]byte(b[8:24]))
	target := netip.AddrFrom16([16]byte(b[ip6Header+8 : ip6Header+24]))
	switch b[ip6Header] {
	case ndAdvert:
		addr = target
	case ndSolicit:
		addr = source
		if source.IsUnspecified() {
			addr = target // duplicate address detection, RFC 4862
		}
	default:
		return addr, false
	}
	return addr, !addr.Is4In6()
}
