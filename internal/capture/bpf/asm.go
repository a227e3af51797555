package bpf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
)

// Opcodes of classic BPF (linux/bpf_common.h, McCanne and Jacobson 1993).
const (
	ldW, ldH, ldB  = 0x20, 0x28, 0x30 // A = packet[k]
	ldIndW         = 0x40             // A = packet[x+k]
	ldLen          = 0x80             // A = length of the packet
	ldImm, ldMem   = 0x00, 0x60
	ldxMem, ldxMSH = 0x61, 0xb1
	st             = 0x02
	tax            = 0x07
	neg            = 0x84
	aluX           = 0x08 // added to an ALU or jump opcode: operand is X, not k
	add, sub, mul  = 0x04, 0x14, 0x24
	div, or, and   = 0x34, 0x44, 0x54
	lsh, rsh, mod  = 0x64, 0x74, 0x94
	xor            = 0xa4
	ja             = 0x05
	jeq, jgt, jge  = 0x15, 0x25, 0x35
	jset           = 0x45
	ret            = 0x06
	scratch        = 16 // words of scratch memory
	maxShortJump   = 255
)

type ins = bpf.RawInstruction

// pred is a condition on the packet: a test, or others joined.
type pred struct {
	kind byte  // 't' test, '&', '|', '!', 'k' constant
	l, r *pred // operands
	load []ins // test: leaves a value in A, from nothing but the packet
	jump uint16
	k    uint32
	val  bool // constant
}

func test(load []ins, jump uint16, k uint32) *pred {
	return &pred{kind: 't', load: load, jump: jump, k: k}
}

func constant(v bool) *pred { return &pred{kind: 'k', val: v} }

func not(p *pred) *pred {
	if p.kind == 'k' {
		return constant(!p.val)
	}
	return &pred{kind: '!', l: p}
}

// both is l and r; a nil operand is left out.
func both(l, r *pred) *pred { return join('&', l, r, true) }

// either is l or r; a nil operand is left out.
func either(l, r *pred) *pred { return join('|', l, r, false) }

func join(kind byte, l, r *pred, neutral bool) *pred {
	switch {
	case l == nil || r != nil && l.kind == 'k' && l.val == neutral:
		return r
	case r == nil || l.kind == 'k' || r.kind == 'k' && r.val == neutral:
		return l
	}
	return &pred{kind: kind, l: l, r: r}
}

// label is a place to jump to. All jumps go forward.
type label struct {
	pos   int    // index of the instruction, once bound
	state string // what A holds there on every way to it, as the load that put it there
	used  bool   // some jump leads here
}

type jumpIns struct {
	ins
	t, f *label // nil for other instructions
}

// assembler lays conditions out as straight code. It leaves out a load when A
// holds its result already.
type assembler struct {
	code   []jumpIns
	labels []*label
	state  string
}

// assemble makes the program that returns 0 where root does not hold, and goes
// on with then where it does.
func assemble(root *pred, then ...ins) ([]ins, error) {
	var a assembler
	yes, no := a.labelAt(0), a.labelAt(0)
	if err := a.emit(root, yes, no); err != nil {
		return nil, err
	}
	no.pos = len(a.code)
	a.code = append(a.code, jumpIns{ins: ins{Op: ret, K: 0}})
	yes.pos = len(a.code)
	for _, i := range then {
		a.code = append(a.code, jumpIns{ins: i})
	}
	a.widen()
	return a.resolve()
}

func (a *assembler) emit(p *pred, t, f *label) error {
	if len(a.code) > MaxInstructions {
		return tooLong()
	}
	switch p.kind {
	case '!':
		return a.emit(p.l, f, t)
	case 'k':
		if !p.val {
			t = f
		}
		a.branch(ins{Op: ja}, t, t)
		return nil
	case '&', '|':
		mid := a.labelAt(0)
		first := [2]*label{mid, f}
		if p.kind == '|' {
			first = [2]*label{t, mid}
		}
		if err := a.emit(p.l, first[0], first[1]); err != nil {
			return err
		}
		mid.pos, a.state = len(a.code), mid.state
		return a.emit(p.r, t, f)
	}
	if key := keyOf(p.load); key != a.state {
		for _, i := range p.load {
			a.code = append(a.code, jumpIns{ins: i})
		}
		a.state = key
	}
	a.branch(ins{Op: p.jump, K: p.k}, t, f)
	return nil
}

func (a *assembler) branch(i ins, t, f *label) {
	a.code = append(a.code, jumpIns{ins: i, t: t, f: f})
	for _, l := range []*label{t, f} {
		if l.used && l.state != a.state {
			l.state = ""
		} else {
			l.state = a.state
		}
		l.used = true
	}
}

// keyOf identifies what a load computes.
func keyOf(load []ins) string {
	b := make([]byte, 0, 8*len(load))
	for _, i := range load {
		b = binary.BigEndian.AppendUint16(b, i.Op)
		b = binary.BigEndian.AppendUint32(b, i.K)
	}
	return string(b)
}

// widen gives each conditional jump that reaches too far for its eight bits an
// unconditional one on the way: one that goes there already, or a new one right
// behind it. From the end to the start, since a new one makes only jumps from
// before it longer.
func (a *assembler) widen() {
	for i := len(a.code) - 1; i >= 0 && len(a.code) <= MaxInstructions; i-- {
		if a.code[i].t == nil || a.code[i].Op == ja {
			continue
		}
		a.code[i].t = a.near(i, a.code[i].t)
		a.code[i].f = a.near(i, a.code[i].f)
	}
}

// near is target, or an unconditional jump to it within reach of instruction i.
// There is always room for the other target to move by one.
func (a *assembler) near(i int, target *label) *label {
	if target.pos-i-1 < maxShortJump {
		return target
	}
	for j := i + 1; j < min(i+maxShortJump, len(a.code)); j++ {
		if c := a.code[j]; c.Op == ja && c.t == target {
			return a.labelAt(j)
		}
	}
	for _, l := range a.labels {
		if l.pos > i {
			l.pos++
		}
	}
	a.code = slices.Insert(a.code, i+1, jumpIns{ins: ins{Op: ja}, t: target, f: target})
	return a.labelAt(i + 1)
}

func (a *assembler) labelAt(pos int) *label {
	l := &label{pos: pos}
	a.labels = append(a.labels, l)
	return l
}

func (a *assembler) resolve() ([]ins, error) {
	if len(a.code) > MaxInstructions {
		return nil, tooLong()
	}
	out := make([]ins, len(a.code))
	for i, c := range a.code {
		out[i] = c.ins
		switch {
		case c.t == nil:
		case c.Op == ja:
			out[i].K = uint32(c.t.pos - i - 1)
		default:
			out[i].Jt, out[i].Jf = uint8(c.t.pos-i-1), uint8(c.f.pos-i-1)
		}
	}
	return out, nil
}

func tooLong() error {
	return &SyntaxError{Msg: fmt.Sprintf("it needs more than the %d instructions a program may have; make it shorter", MaxInstructions)}
}
