package bpf

import (
	"strconv"
	"strings"
)

// parser reads a filter by recursive descent. As in libpcap `and` and `or`
// bind alike, to the left, and a bare address or number takes the qualifiers
// of the primitive before it.
type parser struct {
	toks  []token
	i     int
	gen   gen
	depth int
	q     *qualifier // of the last primitive that had an operand; nil after others
}

// value is what an expression in parentheses may turn out to be.
type value struct {
	pred *pred
	num  *arith
	id   *token // num is this bare number: perhaps an operand of the qualifiers before it
}

func (p *parser) peek() token { return p.toks[p.i] }

func (p *parser) next() token {
	t := p.toks[p.i]
	if p.i < len(p.toks)-1 {
		p.i++
	}
	return t
}

// keyword reports whether the token is one of the words or symbols.
func (t token) keyword(words ...string) bool {
	if t.escaped {
		return false
	}
	for _, w := range words {
		if t.text == w {
			return true
		}
	}
	return false
}

func (p *parser) accept(words ...string) bool {
	if p.peek().keyword(words...) && p.peek().text != "" {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(symbol, why string) error {
	if p.accept(symbol) {
		return nil
	}
	return p.fail(p.peek(), "expected "+strconv.Quote(symbol)+" "+why)
}

func (p *parser) fail(t token, msg string) error {
	return &SyntaxError{Pos: t.pos, Token: t.text, Msg: msg}
}

func (p *parser) deeper(t token) error {
	if p.depth++; p.depth > maxNesting {
		return p.fail(t, "nested deeper than "+strconv.Itoa(maxNesting)+" levels")
	}
	return nil
}

func (p *parser) filter() (*pred, error) {
	if p.peek().text == "" {
		return constant(true), nil
	}
	v, err := p.expr()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.text != "" {
		return nil, p.fail(t, "expected and, or, or the end of the filter")
	}
	return p.condition(v, p.peek())
}

// expr reads terms joined by and, or.
func (p *parser) expr() (value, error) {
	start := p.peek()
	left, err := p.term()
	for err == nil {
		t := p.peek()
		isAnd := t.keyword("and", "&&")
		if !isAnd && !t.keyword("or", "||") {
			return left, nil
		}
		var l, r *pred
		if l, err = p.condition(left, start); err != nil {
			break
		}
		p.next()
		start = p.peek()
		var right value
		if right, err = p.term(); err != nil {
			break
		}
		if r, err = p.condition(right, start); err != nil {
			break
		}
		if isAnd {
			left = value{pred: both(l, r)}
		} else {
			left = value{pred: either(l, r)}
		}
	}
	return value{}, err
}

// condition makes v a condition: it is one, or a bare number that inherits qualifiers.
func (p *parser) condition(v value, at token) (*pred, error) {
	switch {
	case v.pred != nil:
		return v.pred, nil
	case v.id != nil && p.q != nil:
		return p.operand(*p.q, *v.id)
	case v.id != nil:
		return nil, p.fail(*v.id, "a number needs a qualifier before it (port, host, net, proto) or a comparison after it")
	}
	return nil, p.fail(at, "this is a number, not a condition; expected a comparison (=, !=, <, <=, >, >=) after it")
}

// term reads one condition, or a number that a parenthesis around it may make part of one.
func (p *parser) term() (value, error) {
	t := p.peek()
	switch {
	case t.keyword("!", "not"):
		if err := p.deeper(t); err != nil {
			return value{}, err
		}
		defer func() { p.depth-- }()
		p.next()
		v, err := p.term()
		if err != nil {
			return value{}, err
		}
		c, err := p.condition(v, t)
		if err != nil {
			return value{}, err
		}
		return value{pred: not(c)}, nil
	case t.keyword("("):
		v, err := p.group()
		if err != nil || v.pred != nil {
			return v, err
		}
		return p.relation(v)
	case p.atNumber():
		v, err := p.atom()
		if err != nil {
			return value{}, err
		}
		return p.relation(v)
	}
	c, err := p.primitive()
	return value{pred: c}, err
}

// group reads a parenthesis.
func (p *parser) group() (value, error) {
	open := p.next()
	if err := p.deeper(open); err != nil {
		return value{}, err
	}
	defer func() { p.depth-- }()
	v, err := p.expr()
	if err != nil {
		return value{}, err
	}
	return v, p.expect(")", "to close the one at position "+strconv.Itoa(open.pos+1))
}

// atNumber reports whether arithmetic starts here.
func (p *parser) atNumber() bool {
	t := p.peek()
	if t.escaped {
		return false
	}
	if _, ok := constants[t.text]; ok || t.keyword("-", "len", "length") {
		return true
	}
	if _, ok := parseNumber(t.text); ok {
		return true
	}
	_, known := families[canonical(t.text)]
	return known && p.toks[p.i+1].keyword("[")
}

// relation continues a number: operators, then perhaps a comparison.
func (p *parser) relation(v value) (value, error) {
	left, err := p.operators(v.num, 0)
	if err != nil {
		return value{}, err
	}
	t := p.peek()
	if !t.keyword("=", "==", "!=", "<", "<=", ">", ">=") {
		if left != v.num {
			v.id = nil
		}
		v.num = left
		return v, nil
	}
	p.next()
	first, err := p.atom()
	if err != nil {
		return value{}, err
	}
	right, err := p.operators(first.num, 0)
	if err != nil {
		return value{}, err
	}
	c, ok := compare(left, t.text, right)
	if !ok {
		return value{}, p.fail(t, "the arithmetic around it needs more scratch memory than there is; nest it less")
	}
	p.q = nil
	return value{pred: c}, nil
}

// precedence of the binary operators of arithmetic, weakest first.
var precedence = map[string]int{"|": 1, "&": 2, "<<": 3, ">>": 3, "+": 4, "-": 4, "*": 5, "/": 5, "^": 6, "%": 6}

var aluCode = map[string]uint16{
	"|": or, "&": and, "<<": lsh, ">>": rsh, "+": add, "-": sub, "*": mul, "/": div, "^": xor, "%": mod,
}

// operators continues left with operators that bind at least as tight as min.
// ^ and % have no precedence in libpcap's grammar: whatever stands right of
// them belongs to them. We read them the same way.
func (p *parser) operators(left *arith, min int) (*arith, error) {
	for {
		t := p.peek()
		prec, ok := precedence[t.text]
		if !ok || t.escaped || prec < min {
			return left, nil
		}
		p.next()
		if err := p.deeper(t); err != nil {
			return nil, err
		}
		first, err := p.atom()
		if err != nil {
			return nil, err
		}
		inner := prec + 1
		if prec == 6 {
			inner = 0
		}
		right, err := p.operators(first.num, inner)
		if err != nil {
			return nil, err
		}
		p.depth--
		joined, msg := joinNumbers(aluCode[t.text], left, right)
		if msg != "" {
			return nil, p.fail(t, msg)
		}
		left = joined
	}
}

// atom reads one operand of arithmetic.
func (p *parser) atom() (value, error) {
	t := p.peek()
	if n, ok := parseNumber(t.text); ok && t.word && !t.escaped {
		p.next()
		return value{num: number(n), id: &t}, nil
	}
	if n, ok := constants[t.text]; ok && !t.escaped {
		p.next()
		return value{num: number(n)}, nil
	}
	if _, ok := families[canonical(t.text)]; ok && !t.escaped && p.toks[p.i+1].keyword("[") {
		return p.byteAccess()
	}
	if err := p.deeper(t); err != nil {
		return value{}, err
	}
	defer func() { p.depth-- }()
	switch {
	case p.accept("len", "length"):
		return value{num: &arith{op: ldLen}}, nil
	case p.accept("-"):
		v, err := p.atom()
		if err != nil {
			return value{}, err
		}
		return value{num: negate(v.num)}, nil
	case p.accept("("):
		v, err := p.number()
		if err != nil {
			return value{}, err
		}
		return value{num: v}, p.expect(")", "to close the one at position "+strconv.Itoa(t.pos+1))
	}
	return value{}, p.fail(t, "expected a number, len, or a byte access such as tcp[13]")
}

// number reads arithmetic where nothing else can stand.
func (p *parser) number() (*arith, error) {
	v, err := p.atom()
	if err != nil {
		return nil, err
	}
	return p.operators(v.num, 0)
}

// byteAccess reads proto[index] or proto[index:size].
func (p *parser) byteAccess() (value, error) {
	t := p.next()
	name := canonical(t.text)
	if !families[name].access {
		return value{}, p.fail(t, "byte access to "+name+" is not supported")
	}
	if err := p.deeper(t); err != nil {
		return value{}, err
	}
	defer func() { p.depth-- }()
	p.next()
	at := p.peek()
	index, err := p.number()
	if err != nil {
		return value{}, err
	}
	if index.constant() && index.k > 0x7fffffff-4096 {
		return value{}, p.fail(at, "the offset lies beyond any packet")
	}
	size := uint32(1)
	if p.accept(":") {
		s := p.next()
		n, ok := parseNumber(s.text)
		if !ok || n != 1 && n != 2 && n != 4 {
			return value{}, p.fail(s, "expected a size of 1, 2 or 4 bytes")
		}
		size = n
	}
	if err := p.expect("]", "to end the byte access"); err != nil {
		return value{}, err
	}
	return value{num: p.gen.access(name, index, size)}, nil
}

// canonical is the main spelling of a keyword.
func canonical(word string) string {
	if a, ok := aliases[word]; ok {
		return a
	}
	return word
}

// parseNumber reads a number as C does: decimal, 0x hexadecimal, 0 octal.
func parseNumber(s string) (uint32, bool) {
	base := 10
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	n, err := strconv.ParseUint(s, base, 32)
	return uint32(n), err == nil
}
