package bpf

import (
	"encoding/binary"
	"net/netip"
)

// Frames for the tests, built by hand so that nothing of the code under test is in them.

func frame(etherType uint16, payload []byte) []byte {
	f := []byte{0x02, 0, 0, 0, 0, 0x02, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55}
	f = binary.BigEndian.AppendUint16(f, etherType)
	return append(f, payload...)
}

func withMACs(f []byte, dst, src [6]byte) []byte {
	g := append([]byte(nil), f...)
	copy(g, dst[:])
	copy(g[6:], src[:])
	return g
}

// tagged inserts a VLAN tag.
func tagged(f []byte, tpid uint16, tci uint16) []byte {
	g := append([]byte(nil), f[:12]...)
	g = binary.BigEndian.AppendUint16(g, tpid)
	g = binary.BigEndian.AppendUint16(g, tci)
	return append(g, f[12:]...)
}

func ipv4(proto byte, fragment uint16, optionWords int, src, dst string, payload []byte) []byte {
	h := make([]byte, 20+4*optionWords)
	h[0] = byte(0x40 | len(h)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[6:], fragment)
	h[8], h[9] = 64, proto
	copy(h[12:], netip.MustParseAddr(src).AsSlice())
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	return append(h, payload...)
}

func ipv6(next byte, src, dst string, payload []byte) []byte {
	h := make([]byte, 40)
	h[0] = 0x60
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	h[6], h[7] = next, 64
	copy(h[8:], netip.MustParseAddr(src).AsSlice())
	copy(h[24:], netip.MustParseAddr(dst).AsSlice())
	return append(h, payload...)
}

func fragment6(next byte, offset uint16, payload []byte) []byte {
	h := []byte{next, 0, 0, 0, 0, 0, 0, 1}
	binary.BigEndian.PutUint16(h[2:], offset<<3|1)
	return append(h, payload...)
}

func ports(src, dst uint16, rest ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	return append(binary.BigEndian.AppendUint16(b, dst), rest...)
}

func tcp(src, dst uint16, flags byte) []byte {
	b := ports(src, dst, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0)
	return append(b, "payload of a segment"...)
}

func udp(src, dst uint16) []byte { return ports(src, dst, 0, 20, 0, 0, 'h', 'i', 0, 1, 2, 3) }

func arp(op uint16, src, dst string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, byte(op), 0, 0x11, 0x22, 0x33, 0x44, 0x55}
	b = append(b, netip.MustParseAddr(src).AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, netip.MustParseAddr(dst).AsSlice()...)
}

// packets are some hundred frames of all kinds, whole, tagged and cut short.
func packets() [][]byte {
	whole := wholePackets()
	var all [][]byte
	for i, f := range whole {
		all = append(all, f, tagged(f, 0x8100, 5), tagged(f, 0x8100, 0x6010))
		switch i % 4 {
		case 0:
			all = append(all, tagged(tagged(f, 0x8100, 10), 0x88a8, 5))
		case 1:
			all = append(all, tagged(tagged(f, 0x8100, 5), 0x8100, 10), tagged(f, 0x9100, 16))
		}
	}
	for i, f := range all[:len(all):len(all)] {
		for _, n := range []int{0, 1, 11, 13, 14, 15, 17, 20, 22, 24, 28, 33, 34, 36, 38, 42, 47, 53, 54, 56, 58, 60, 66} {
			if n < len(f) && (i+n)%3 == 0 {
				all = append(all, f[:n])
			}
		}
	}
	return all
}

func wholePackets() [][]byte {
	const a4, b4, c4 = "10.1.2.3", "192.168.1.7", "10.1.9.9"
	const a6, b6 = "fe80::1", "2001:db8::7"
	var out [][]byte
	add4 := func(p []byte) { out = append(out, frame(0x0800, p)) }
	add6 := func(p []byte) { out = append(out, frame(0x86dd, p)) }
	for _, pp := range [][2]uint16{{1024, 80}, {80, 1024}, {443, 53}, {53, 5353}, {8080, 22}, {22, 22}, {65535, 0}} {
		for _, flags := range []byte{0, 2, 0x12, 0x11, 4, 0xff} {
			add4(ipv4(6, 0, int(flags)%3, a4, b4, tcp(pp[0], pp[1], flags)))
		}
		add4(ipv4(17, 0x4000, 0, b4, a4, udp(pp[0], pp[1])))
		add4(ipv4(132, 0, 2, a4, c4, ports(pp[0], pp[1], 0, 0, 0, 0, 1, 2, 3, 4)))
		add6(ipv6(6, a6, b6, tcp(pp[0], pp[1], 2)))
		add6(ipv6(17, b6, a6, udp(pp[0], pp[1])))
		add6(ipv6(132, a6, "ff02::1", ports(pp[0], pp[1], 0, 0, 0, 0)))
	}
	for _, f := range []uint16{0x2000, 0x2001, 0x0010, 0x1fff} {
		add4(ipv4(17, f, 0, a4, b4, udp(1024, 80)))
		add4(ipv4(6, f, 1, a4, b4, tcp(1024, 80, 2)))
		add6(ipv6(44, a6, b6, fragment6(17, f&0x1fff, udp(1024, 80))))
		add6(ipv6(44, a6, b6, fragment6(58, f&0x1fff, []byte{128, 0, 0, 0, 0, 1})))
	}
	for _, t := range []byte{0, 3, 5, 8, 11, 13} {
		add4(ipv4(1, 0, int(t)%2, a4, "8.8.8.8", []byte{t, 1, 0, 0, 0, 1, 0, 2}))
	}
	for _, t := range []byte{1, 128, 129, 134, 135, 136} {
		add6(ipv6(58, a6, "ff02::2", []byte{t, 0, 0, 0, 0, 1, 0, 2}))
	}
	for _, n := range []byte{2, 4, 9, 46, 47, 50, 51, 89, 103, 112, 255} {
		add4(ipv4(n, 0, 0, a4, "224.0.0.5", []byte{1, 2, 3, 4, 5, 6, 7, 8}))
		add6(ipv6(n, a6, b6, []byte{6, 0, 3, 4, 5, 6, 7, 8}))
	}
	add6(ipv6(0, a6, b6, append([]byte{6, 0, 0, 0, 0, 0, 0, 0}, tcp(1024, 80, 2)...))) // hop-by-hop options
	add4(ipv4(17, 0, 0, "0.0.0.0", "255.255.255.255", udp(68, 67)))
	for op, who := range []string{"10.1.2.3", "10.0.0.1", "172.16.5.4"} {
		out = append(out, frame(0x0806, arp(uint16(op), who, "10.1.2.3")), frame(0x8035, arp(uint16(op+2), who, "192.168.1.7")))
	}
	bcast, multi := [6]byte{255, 255, 255, 255, 255, 255}, [6]byte{1, 0, 0x5e, 0, 0, 1}
	own, other := [6]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55}, [6]byte{2, 0, 0, 0, 0, 9}
	for _, i := range []int{0, 6, 30, len(out) - 1} {
		out = append(out, withMACs(out[i], bcast, own), withMACs(out[i], multi, other), withMACs(out[i], own, other))
	}
	stp := append([]byte{0x42, 0x42, 3}, make([]byte, 40)...)
	iso := append([]byte{0xfe, 0xfe, 3, 0x83}, make([]byte, 40)...)
	out = append(out, frame(43, stp), frame(44, iso), frame(0x88cc, make([]byte, 50)), frame(0x0800, make([]byte, 1400)))
	return append(out, frame(0x8847, make([]byte, 60)), frame(0x9000, make([]byte, 46)), frame(0x6003, make([]byte, 46)))
}
