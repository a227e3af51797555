package bpf

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// address is `host A`, `net A`, or a direction and A.
func (p *parser) address(q qualifier, t token) (*pred, error) {
	if mac, ok := parseMAC(t.text); ok {
		if q.proto != "ether" || q.kind == "net" {
			return nil, p.fail(t, "an Ethernet address goes with ether host, ether src or ether dst")
		}
		return ethernet(mac, q.dir), nil
	}
	if q.proto == "ether" {
		return nil, p.fail(t, "expected an Ethernet address such as 00:11:22:33:44:55 after ether")
	}
	if strings.Contains(t.text, ":") {
		return p.address6(q, t)
	}
	addr, bits, ok := parseIPv4(t.text)
	if !ok {
		return nil, p.fail(t, "expected "+q.wants()+"; host names are not looked up, use addresses")
	}
	return p.address4(q, t, addr, bits)
}

// address4 is an IPv4 address of which bits were written, perhaps with a mask.
func (p *parser) address4(q qualifier, t token, addr uint32, bits int) (*pred, error) {
	switch q.proto {
	case "", "ip", "arp", "rarp":
	default:
		return nil, p.fail(t, "an IPv4 address goes with ip, arp or rarp, not with "+q.proto)
	}
	mask := ^uint32(0) << (32 - bits)
	number, isNumber := parseNumber(t.text)
	if isNumber && q.kind != "net" { // as libpcap: the number itself
		addr, mask = number, ^uint32(0)
	}
	m, given, err := p.mask4(q)
	if err != nil {
		return nil, err
	}
	if given {
		mask = m
	}
	if addr&^mask != 0 {
		return nil, p.fail(t, "bits of the address lie outside the mask")
	}
	return p.gen.host4(q.proto, addr, mask, q.dir), nil
}

// mask4 reads `/N` or `mask A` behind a network.
func (p *parser) mask4(q qualifier) (mask uint32, given bool, err error) {
	at := p.peek()
	slash, word := at.keyword("/"), at.keyword("mask", "netmask")
	if !slash && !word {
		return 0, false, nil
	}
	if q.kind != "net" {
		return 0, false, p.fail(at, "a mask goes with net only")
	}
	p.next()
	t := p.next()
	if word {
		addr, bits, ok := parseIPv4(t.text)
		if !ok || bits != 32 {
			return 0, false, p.fail(t, "expected a mask such as 255.255.255.0")
		}
		return addr, true, nil
	}
	n, ok := parseNumber(t.text)
	if !ok || n > 32 {
		return 0, false, p.fail(t, "expected a number of bits from 0 to 32")
	}
	return ^uint32(0) << (32 - n), true, nil
}

func (p *parser) address6(q qualifier, t token) (*pred, error) {
	a, err := netip.ParseAddr(t.text)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return nil, p.fail(t, "expected "+q.wants()+"; this is no IPv6 address")
	}
	if q.proto != "" && q.proto != "ip6" {
		return nil, p.fail(t, "an IPv6 address goes with ip6, not with "+q.proto)
	}
	bits := uint32(128)
	if at := p.peek(); at.keyword("/") {
		if q.kind != "net" {
			return nil, p.fail(at, "a mask goes with net only")
		}
		p.next()
		n := p.next()
		b, ok := parseNumber(n.text)
		if !ok || b > 128 {
			return nil, p.fail(n, "expected a number of bits from 0 to 128")
		}
		bits = b
	}
	prefix := netip.PrefixFrom(a, int(bits)).Masked()
	if prefix.Addr() != a {
		return nil, p.fail(t, "bits of the address lie outside the mask of "+strconv.Itoa(int(bits))+" bits")
	}
	var mask [16]byte
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return p.gen.host6(a.As16(), mask, q.dir), nil
}

// parseIPv4 reads one to four numbers with dots between them; missing ones
// are the host's part. A single number above 255 is a whole address.
func parseIPv4(s string) (addr uint32, bits int, ok bool) {
	if n, ok := parseNumber(s); ok {
		bits = 32
		for n != 0 && n&0xff000000 == 0 {
			n <<= 8
			bits -= 8
		}
		return n, bits, true
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return 0, 0, false
	}
	var b [4]byte
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return 0, 0, false
		}
		b[i] = byte(n)
	}
	addr, bits = binary.BigEndian.Uint32(b[:]), 8*len(parts)
	return addr, bits, true
}

// parseMAC reads six bytes in hexadecimal with colons, dashes or dots between
// them, or twelve digits in three groups.
func parseMAC(s string) (mac [6]byte, ok bool) {
	for _, sep := range []string{":", "-", "."} {
		parts := strings.Split(s, sep)
		if len(parts) == 3 && sep == "." && len(parts[0]) == 4 && len(parts[1]) == 4 && len(parts[2]) == 4 {
			joined := strings.Join(parts, "")
			parts = nil
			for i := 0; i < 12; i += 2 {
				parts = append(parts, joined[i:i+2])
			}
		}
		if len(parts) != 6 {
			continue
		}
		for i, part := range parts {
			n, err := strconv.ParseUint(part, 16, 8)
			if err != nil || len(part) > 2 {
				return mac, false
			}
			mac[i] = byte(n)
		}
		return mac, true
	}
	return mac, false
}
