package capture

import (
	"encoding/binary"
	"fmt"

	xbpf "golang.org/x/net/bpf"

	"minimega/internal/capture/bpf"
	"minimega/internal/errs"
)

// selector applies a filter: in the kernel where it can, and on the reader's
// side to frames whose VLAN the kernel's program does not see.
type selector struct {
	expr    string
	snaplen int
	program bpf.Program // for frames without a VLAN of their link
	plain   *xbpf.VM
	byVLAN  map[int]*xbpf.VM // for links with a VLAN, if the filter asks for one
	frame   []byte           // a frame with its tag put back
}

func newSelector(o Options) (*selector, error) {
	p, err := bpf.CompileWith(o.Filter, bpf.Options{Snaplen: o.Snaplen, Tag: bpf.NoTag})
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, fmt.Errorf("capture %w", err))
	}
	vm, err := machine(p)
	if err != nil {
		return nil, err
	}
	return &selector{expr: o.Filter, snaplen: o.Snaplen, program: p, plain: vm, byVLAN: map[int]*xbpf.VM{}}, nil
}

func machine(p bpf.Program) (*xbpf.VM, error) {
	ins, _ := xbpf.Disassemble(p.Instructions)
	vm, err := xbpf.NewVM(ins)
	if err != nil {
		return nil, errs.New(errs.Internal, "compiled filter does not run: %w", err)
	}
	return vm, nil
}

// forInterface is the kernel's program for a single interface.
func (s *selector) forInterface() []xbpf.RawInstruction {
	if s.expr == "" {
		return s.program.Instructions
	}
	return bpf.PassTagged(s.program.Instructions)
}

// forLinks is the kernel's program for a set of links. Where the verdict
// depends on the link's VLAN, the kernel only selects the links.
func (s *selector) forLinks(in, out []int) ([]xbpf.RawInstruction, error) {
	prog := s.forInterface()
	if s.program.VLAN {
		prog = acceptUpTo(bpf.DefaultSnaplen)
	}
	return bpf.FromLinks(in, out, prog)
}

// acceptUpTo is the program that accepts n bytes of every packet; of none for 0.
func acceptUpTo(n uint32) []xbpf.RawInstruction {
	const ret = 0x06
	return []xbpf.RawInstruction{{Op: ret, K: n}}
}

// wants gives the verdict on a packet that the kernel passed on, from a link of VLAN vlan.
func (s *selector) wants(p *packet, vlan int) bool {
	if s.expr == "" || !p.tagged && (vlan == 0 || !s.program.VLAN) {
		return true
	}
	vm := s.plain
	if vlan != 0 && s.program.VLAN {
		vm = s.forVLAN(vlan)
	}
	n, err := vm.Run(s.whole(p))
	return err == nil && n > 0
}

// forVLAN is the filter as frames of a VLAN see it that do not carry its tag.
func (s *selector) forVLAN(vlan int) *xbpf.VM {
	vm, ok := s.byVLAN[vlan]
	if !ok {
		// The expression compiled once; only a constant differs.
		p, err := bpf.CompileWith(s.expr, bpf.Options{Snaplen: s.snaplen, Tag: vlan})
		if err == nil {
			vm, err = machine(p)
		}
		if err != nil {
			vm = s.plain
		}
		s.byVLAN[vlan] = vm
	}
	return vm
}

// whole is the frame as it was on the wire.
func (s *selector) whole(p *packet) []byte {
	if !p.tagged || len(p.data) < 12 {
		return p.data
	}
	s.frame = appendTag(append(s.frame[:0], p.data[:12]...), p.tpid, p.tci)
	s.frame = append(s.frame, p.data[12:]...)
	return s.frame
}

// appendTag appends an 802.1Q tag.
func appendTag(dst []byte, tpid, tci uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(dst, tpid), tci)
}
