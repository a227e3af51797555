package bpf

// arith is a number computed from the packet.
type arith struct {
	op    uint16 // ALU opcode, neg, ldLen, or ldImm for a constant
	k     uint32 // constant
	l, r  *arith
	load  *access
	need  int     // scratch words that its code uses
	guard []guard // what the packet must be for its loads to make sense
}

// access is a byte access: proto[index:size].
type access struct {
	base      uint32 // bytes before offset 0 of the header
	transport bool   // the header follows an IPv4 header, whose length counts too
	network   uint32 // where that IPv4 header starts
	size      uint32
	index     *arith
}

// guard is a condition with a name by which doubles are found.
type guard struct {
	name string
	cond *pred
}

func number(k uint32) *arith { return &arith{op: ldImm, k: k} }

func (e *arith) constant() bool { return e.op == ldImm && e.load == nil }

// joinNumbers joins two numbers. Constants are folded; the error is text without a place.
func joinNumbers(op uint16, l, r *arith) (*arith, string) {
	if r.constant() {
		switch {
		case (op == div || op == mod) && r.k == 0:
			return nil, "division by zero"
		case (op == lsh || op == rsh) && r.k > 31:
			return nil, "a shift by more than 31 bits"
		}
		if l.constant() {
			return number(fold(op, l.k, r.k)), ""
		}
	}
	return &arith{op: op, l: l, r: r, need: scratchNeed(l, r), guard: merge(l.guard, r.guard)}, ""
}

func fold(op uint16, a, b uint32) uint32 {
	switch op {
	case add:
		return a + b
	case sub:
		return a - b
	case mul:
		return a * b
	case div:
		return a / b
	case mod:
		return a % b
	case or:
		return a | b
	case and:
		return a & b
	case xor:
		return a ^ b
	case lsh:
		return a << b
	}
	return a >> b
}

// negate is -e, modulo 2^32 as all numbers of a filter.
func negate(e *arith) *arith {
	if e.constant() {
		return number(-e.k)
	}
	return &arith{op: neg, l: e, need: e.need, guard: e.guard}
}

func merge(a, b []guard) []guard {
	out := append([]guard(nil), a...)
next:
	for _, g := range b {
		for _, have := range a {
			if have.name == g.name {
				continue next
			}
		}
		out = append(out, g)
	}
	return out
}

// code appends the instructions that leave e in A, using scratch words from
// depth on. It reports false when they do not suffice.
func (e *arith) code(c []ins, depth uint32) ([]ins, bool) {
	switch {
	case e.load != nil:
		return e.load.code(c, depth)
	case e.op == ldImm, e.op == ldLen:
		return append(c, ins{Op: e.op, K: e.k}), true
	case e.op == neg:
		c, ok := e.l.code(c, depth)
		return append(c, ins{Op: mul, K: 0xffffffff}), ok // x/net/bpf's VM has no negation
	case e.r.constant():
		c, ok := e.l.code(c, depth)
		return append(c, ins{Op: e.op, K: e.r.k}), ok
	}
	c, ok := operands(c, e.l, e.r, depth)
	return append(c, ins{Op: e.op | aluX}), ok
}

// scratchNeed is how many scratch words code for two operands needs, when that
// which needs more is computed first (Sethi and Ullman 1970).
func scratchNeed(l, r *arith) int {
	switch {
	case r.constant():
		return l.need
	case l.need == r.need:
		return l.need + 1
	}
	return max(l.need, r.need, 1)
}

// operands leaves l in A and r in X.
func operands(c []ins, l, r *arith, depth uint32) ([]ins, bool) {
	if depth >= scratch {
		return nil, false
	}
	first, second := r, l
	if l.need > r.need {
		first, second = l, r
	}
	c, ok := first.code(c, depth)
	if !ok {
		return nil, false
	}
	c = append(c, ins{Op: st, K: depth})
	if c, ok = second.code(c, depth+1); !ok {
		return nil, false
	}
	if first == l {
		return append(c, ins{Op: tax}, ins{Op: ldMem, K: depth}), true
	}
	return append(c, ins{Op: ldxMem, K: depth}), true
}

func (a *access) code(c []ins, depth uint32) ([]ins, bool) {
	size := map[uint32]uint16{1: 16, 2: 8, 4: 0}[a.size]
	header := ins{Op: ldxMSH, K: a.network}
	if a.index.constant() {
		if a.transport {
			return append(c, header, ins{Op: ldIndW + size, K: a.base + a.index.k}), true
		}
		return append(c, ins{Op: ldW + size, K: a.base + a.index.k}), true
	}
	c, ok := a.index.code(c, depth)
	if a.transport {
		c = append(c, header, ins{Op: add | aluX})
	}
	return append(c, ins{Op: tax}, ins{Op: ldIndW + size, K: a.base}), ok
}

// compare is the condition l relation r, on unsigned 32-bit numbers.
func compare(l *arith, relation string, r *arith) (*pred, bool) {
	jump := map[string]uint16{"=": jeq, "==": jeq, "!=": jeq, ">": jgt, "<=": jgt, ">=": jge, "<": jge}[relation]
	inverse := relation == "!=" || relation == "<=" || relation == "<"
	if l.constant() && r.constant() {
		holds := jump == jeq && l.k == r.k || jump == jgt && l.k > r.k || jump == jge && l.k >= r.k
		return constant(holds != inverse), true
	}
	var p *pred
	if r.constant() {
		c, ok := l.code(nil, 0)
		if !ok {
			return nil, false
		}
		p = test(c, jump, r.k)
	} else {
		c, ok := operands(nil, l, r, 0)
		if !ok {
			return nil, false
		}
		p = test(c, jump|aluX, 0)
	}
	if inverse {
		p = not(p)
	}
	guards := merge(l.guard, r.guard)
	for i := len(guards) - 1; i >= 0; i-- {
		p = both(guards[i].cond, p)
	}
	return p, true
}
