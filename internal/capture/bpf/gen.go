package bpf

import "encoding/binary"

// gen builds the conditions of the language's primitives. Its offsets move by
// four bytes at each `vlan`, in the order in which the filter is read.
type gen struct {
	linkType uint32 // offset of the EtherType
	network  uint32 // offset of what follows it
	tag      int    // Options.Tag
	vlans    int    // `vlan`s seen
}

// direction of an address or port.
type direction byte

const (
	anyDir direction = iota // src or dst
	srcDir
	dstDir
	bothDir // src and dst
)

// sides joins the conditions on source and destination as d says.
func (d direction) sides(src, dst func() *pred) *pred {
	switch d {
	case srcDir:
		return src()
	case dstDir:
		return dst()
	case bothDir:
		return both(src(), dst())
	}
	return either(src(), dst())
}

func abs(size uint16, offset uint32) []ins { return []ins{{Op: size, K: offset}} }

// field compares bytes at an absolute offset.
func field(size uint16, offset, value uint32) *pred { return test(abs(size, offset), jeq, value) }

// masked compares the bits under mask of the word at offset.
func masked(size uint16, offset, value, mask, all uint32) *pred {
	load := abs(size, offset)
	if mask != all {
		load = append(load, ins{Op: and, K: mask})
	}
	return test(load, jeq, value)
}

// etherType is the condition that a frame carries protocol t. A number up to
// 1500 is a length there, and t then an LLC service access point (IEEE 802.3).
func (g *gen) etherType(t uint32) *pred {
	if t > 1500 {
		return field(ldH, g.linkType, t)
	}
	llc := not(test(abs(ldH, g.linkType), jgt, 1500))
	if t == 0xfe { // OSI: source and destination access point alike
		return both(llc, field(ldH, g.network, 0xfefe))
	}
	return both(llc, field(ldB, g.network, t))
}

func (g *gen) ip4() *pred { return g.etherType(0x0800) }
func (g *gen) ip6() *pred { return g.etherType(0x86dd) }

// ipProto is the condition that IP carries protocol n, in the given versions.
func (g *gen) ipProto(n uint32, v4, v6 bool) *pred {
	var p *pred
	if v4 {
		p = both(g.ip4(), field(ldB, g.network+9, n))
	}
	if v6 { // directly, or behind a fragment header
		behind := both(field(ldB, g.network+6, 44), field(ldB, g.network+40, n))
		p = either(p, both(g.ip6(), either(field(ldB, g.network+6, n), behind)))
	}
	return p
}

func (g *gen) family(f family) *pred {
	switch {
	case f.etherType != 0:
		return g.etherType(f.etherType)
	case f.sap != 0:
		return g.etherType(f.sap)
	}
	return g.ipProto(f.ip, f.v4, f.v6)
}

// host4 is the condition on IPv4 addresses in IP, ARP and RARP, or in one of them.
func (g *gen) host4(proto string, addr, mask uint32, d direction) *pred {
	at := func(etherType, src, dst uint32) *pred {
		side := func(o uint32) func() *pred {
			return func() *pred { return masked(ldW, g.network+o, addr, mask, 0xffffffff) }
		}
		return both(g.etherType(etherType), d.sides(side(src), side(dst)))
	}
	switch proto {
	case "ip":
		return at(0x0800, 12, 16)
	case "arp":
		return at(0x0806, 14, 24)
	case "rarp":
		return at(0x8035, 14, 24)
	}
	return either(either(at(0x0800, 12, 16), at(0x0806, 14, 24)), at(0x8035, 14, 24))
}

// host6 is the condition on IPv6 addresses. Words that the mask leaves out are not looked at.
func (g *gen) host6(addr, mask [16]byte, d direction) *pred {
	side := func(o uint32) func() *pred {
		return func() *pred {
			var p *pred
			for i := uint32(0); i < 16; i += 4 {
				m := binary.BigEndian.Uint32(mask[i:])
				if m != 0 {
					p = both(p, masked(ldW, g.network+o+i, binary.BigEndian.Uint32(addr[i:]), m, 0xffffffff))
				}
			}
			if p == nil {
				return constant(true)
			}
			return p
		}
	}
	return both(g.ip6(), d.sides(side(8), side(24)))
}

// ethernet is the condition on the addresses of the frame itself.
func ethernet(mac [6]byte, d direction) *pred {
	side := func(o uint32) func() *pred {
		return func() *pred {
			return both(field(ldW, o+2, binary.BigEndian.Uint32(mac[2:])),
				field(ldH, o, uint32(binary.BigEndian.Uint16(mac[:]))))
		}
	}
	return d.sides(side(6), side(0))
}

// ports is the condition that a port lies in lo..hi, over the given protocols.
// In IPv4 only the first fragment has ports; IPv6 with extension headers is
// not looked into.
func (g *gen) ports(lo, hi uint32, protos []uint32, d direction) *pred {
	in := func(load []ins) func() *pred {
		return func() *pred {
			if lo == hi {
				return test(load, jeq, lo)
			}
			return both(test(load, jge, lo), not(test(load, jgt, hi)))
		}
	}
	carried := func(at uint32) *pred {
		var p *pred
		for _, n := range protos {
			p = either(p, field(ldB, at, n))
		}
		return p
	}
	header := ins{Op: ldxMSH, K: g.network}
	src4 := []ins{header, {Op: ldIndW + 8, K: g.network}}
	dst4 := []ins{header, {Op: ldIndW + 8, K: g.network + 2}}
	first := not(test(abs(ldH, g.network+6), jset, 0x1fff))
	v6 := both(g.ip6(), both(carried(g.network+6),
		d.sides(in(abs(ldH, g.network+40)), in(abs(ldH, g.network+42)))))
	v4 := both(g.ip4(), both(both(carried(g.network+9), first), d.sides(in(src4), in(dst4))))
	return either(v6, v4)
}

// vlan is the condition that the frame has a VLAN tag, with number id unless
// that is negative. What the filter says after it concerns what is behind the tag.
func (g *gen) vlan(id int) *pred {
	g.vlans++
	if g.vlans == 1 && g.tag != NoTag {
		return constant(id < 0 || id == g.tag)
	}
	p := either(either(field(ldH, g.linkType, 0x8100), field(ldH, g.linkType, 0x88a8)), field(ldH, g.linkType, 0x9100))
	if id >= 0 {
		p = both(p, masked(ldH, g.network, uint32(id), 0x0fff, 0xffff))
	}
	g.linkType += 4
	g.network += 4
	return p
}

// broadcast is the condition on the destination, of the frame or of the IPv4 packet.
func (g *gen) broadcast(proto string) *pred {
	if proto == "ip" { // the netmask is unknown: what is broadcast on every network
		return both(g.ip4(), either(field(ldW, g.network+16, 0), field(ldW, g.network+16, 0xffffffff)))
	}
	return ethernet([6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, dstDir)
}

func (g *gen) multicast(proto string) *pred {
	switch proto {
	case "ip":
		return both(g.ip4(), test(abs(ldB, g.network+16), jge, 224))
	case "ip6":
		return both(g.ip6(), field(ldB, g.network+24, 255))
	}
	return test(abs(ldB, 0), jset, 1)
}

// access is proto[index:size], with what must hold for it to make sense.
func (g *gen) access(name string, index *arith, size uint32) *arith {
	f := families[name]
	a := &access{size: size, index: index, base: g.network, network: g.network}
	e := &arith{load: a, need: index.need}
	switch {
	case name == "ether":
		a.base = 0
		e.guard = index.guard
		return e
	case f.etherType != 0:
	case f.v6 && !f.v4: // directly behind the fixed IPv6 header
		a.base += 40
		e.guard = []guard{{name, both(g.ip6(), field(ldB, g.network+6, f.ip))}}
		e.guard = merge(index.guard, e.guard)
		return e
	default:
		a.transport = true
		first := not(test(abs(ldH, g.network+6), jset, 0x1fff))
		carried := both(g.ip4(), field(ldB, g.network+9, f.ip))
		e.guard = merge(index.guard, []guard{{name, both(carried, first)}})
		return e
	}
	e.guard = merge(index.guard, []guard{{name, g.family(f)}})
	return e
}
