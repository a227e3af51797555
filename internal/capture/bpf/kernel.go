package bpf

import (
	"slices"

	"golang.org/x/net/bpf"
)

// Facts about a packet that the kernel's loads know (linux/filter.h).
const (
	factBase     = 0xfffff000
	factType     = factBase + 4 // PACKET_OUTGOING for what the host sends
	factIndex    = factBase + 8 // index of the interface
	factTagged   = factBase + 48
	typeOutgoing = 4
)

// PassTagged makes of a program one for a packet socket, where the kernel has
// taken the VLAN tag out of some frames before the filter sees them. Those
// frames are accepted whole: put the tag back and run the program on them.
func PassTagged(prog []bpf.RawInstruction) []bpf.RawInstruction {
	head := []ins{
		{Op: ldW, K: factTagged},
		{Op: jeq, K: 0, Jt: 1},
		{Op: ret, K: DefaultSnaplen},
	}
	return append(head, prog...)
}

// FromLinks is a program for a packet socket on all interfaces: prog runs on
// frames that come in through an interface of in or go out through one of out,
// given by index; all others are rejected. Its search takes logarithmic time.
// It fails when there are too many interfaces.
func FromLinks(in, out []int, prog []bpf.RawInstruction) ([]bpf.RawInstruction, error) {
	outgoing := test(abs(ldW, factType), jeq, typeOutgoing)
	root := either(both(search(in), not(outgoing)), both(search(out), outgoing))
	return assemble(root, prog...)
}

// search is the condition that the interface is one of the given.
func search(indexes []int) *pred {
	sorted := slices.Clone(indexes)
	slices.Sort(sorted)
	return within(slices.Compact(sorted))
}

func within(sorted []int) *pred {
	load := abs(ldW, factIndex)
	switch n := len(sorted); n {
	case 0:
		return constant(false)
	case 1, 2, 3:
		p := test(load, jeq, uint32(sorted[0]))
		for _, i := range sorted[1:] {
			p = either(p, test(load, jeq, uint32(i)))
		}
		return p
	default:
		upper := test(load, jge, uint32(sorted[n/2]))
		return either(both(upper, within(sorted[n/2:])), both(not(upper), within(sorted[:n/2])))
	}
}
