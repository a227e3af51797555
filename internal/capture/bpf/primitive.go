package bpf

import (
	"strconv"
	"strings"
)

// qualifier is what stands before an operand: `tcp src port`.
type qualifier struct {
	proto string    // "", "ether", "ip", "tcp", ...
	dir   direction // of what
	kind  string    // "host", "net", "port", "portrange", "proto", or "" when left out
}

// primitive reads a condition that starts with a keyword, or an operand that
// inherits its qualifiers.
func (p *parser) primitive() (*pred, error) {
	t := p.peek()
	switch {
	case !t.word:
		return nil, p.fail(t, "expected a condition")
	case t.escaped:
		return p.inherited()
	}
	if err := p.unsupported(t); err != nil {
		return nil, err
	}
	switch {
	case t.keyword("vlan"):
		return p.vlan()
	case t.keyword("less", "greater"):
		return p.length()
	}
	return p.qualified()
}

// unsupported is the error for words of the language that are left out, else nil.
func (p *parser) unsupported(t token) error {
	reason, ok := unsupported[t.text]
	if !ok {
		return nil
	}
	msg := "this part of the filter language is not supported"
	if reason != "" {
		msg += ": " + reason
	}
	return p.fail(t, msg)
}

// inherited reads an operand without qualifiers of its own.
func (p *parser) inherited() (*pred, error) {
	t := p.peek()
	if p.q == nil {
		return nil, p.fail(t, "expected a keyword (host, net, port, ether, ip, tcp, ...); an address or name needs a qualifier before it")
	}
	p.next()
	return p.operand(*p.q, t)
}

func (p *parser) vlan() (*pred, error) {
	p.next()
	p.q = nil
	open := 0
	for p.toks[p.i+open].keyword("(") {
		open++
	}
	t := p.toks[p.i+open]
	n, ok := parseNumber(t.text)
	if !ok || t.escaped {
		return p.gen.vlan(-1), nil
	}
	if n > 4095 {
		return nil, p.fail(t, "a VLAN number is at most 4095")
	}
	p.i += open + 1
	for range open {
		if err := p.expect(")", "after the VLAN number"); err != nil {
			return nil, err
		}
	}
	return p.gen.vlan(int(n)), nil
}

// length reads `less N` (at most N bytes) and `greater N` (at least N).
func (p *parser) length() (*pred, error) {
	word, t := p.next(), p.next()
	n, ok := parseNumber(t.text)
	if !ok {
		return nil, p.fail(t, "expected a length in bytes after "+word.text)
	}
	p.q = nil
	load := []ins{{Op: ldLen}}
	if word.text == "greater" {
		return test(load, jge, n), nil
	}
	return not(test(load, jgt, n)), nil
}

// qualified reads qualifiers and their operand, or a protocol alone.
func (p *parser) qualified() (*pred, error) {
	start := p.peek()
	q := qualifier{}
	if _, ok := families[canonical(start.text)]; ok {
		q.proto = canonical(start.text)
		p.next()
	}
	switch {
	case p.accept("broadcast"):
		return p.groupcast(q, start, "broadcast", p.gen.broadcast, "ip")
	case p.accept("multicast"):
		return p.groupcast(q, start, "multicast", p.gen.multicast, "ip", "ip6")
	}
	dir, hasDir := p.direction()
	q.dir = dir
	if t := p.peek(); t.keyword("host", "net", "port", "portrange") || !hasDir && t.keyword("proto") {
		q.kind = p.next().text
	} else if !hasDir {
		return p.alone(q, start)
	}
	p.q = &q
	return p.operands(q)
}

// alone is a protocol without qualifiers, or an operand that inherits them.
func (p *parser) alone(q qualifier, start token) (*pred, error) {
	if q.proto == "" {
		return p.inherited()
	}
	p.q = nil
	if q.proto == "ether" {
		return nil, p.fail(p.peek(), "expected host, src, dst, proto, broadcast or multicast after ether")
	}
	if err := p.unsupported(p.peek()); err != nil {
		return nil, err
	}
	if t := p.peek(); t.word && !t.keyword("and", "or", "not") {
		return nil, p.fail(t, "expected and, or, a direction (src, dst) or a type (host, net, port, proto) after "+start.text)
	}
	return p.gen.family(families[q.proto]), nil
}

// groupcast makes `broadcast` or `multicast`, which only some protocols have.
func (p *parser) groupcast(q qualifier, at token, word string, make func(string) *pred, protos ...string) (*pred, error) {
	p.q = nil
	for _, ok := range append(protos, "", "ether") {
		if q.proto == ok {
			return make(q.proto), nil
		}
	}
	return nil, p.fail(at, word+" goes with ether, "+strings.Join(protos, ", ")+", or alone")
}

// direction reads src, dst, `src or dst`, `src and dst` and their mirrors.
func (p *parser) direction() (direction, bool) {
	t := p.peek()
	if !t.keyword("src", "dst") {
		return anyDir, false
	}
	p.next()
	other := map[string]string{"src": "dst", "dst": "src"}[t.text]
	if join := p.peek(); join.keyword("and", "&&", "or", "||") && p.toks[p.i+1].keyword(other) {
		p.next()
		p.next()
		if join.keyword("and", "&&") {
			return bothDir, true
		}
		return anyDir, true
	}
	if t.text == "src" {
		return srcDir, true
	}
	return dstDir, true
}

// operands reads what follows qualifiers: an operand, `not` one, or several in parentheses.
func (p *parser) operands(q qualifier) (*pred, error) {
	t := p.peek()
	switch {
	case t.keyword("!", "not"):
		if err := p.deeper(t); err != nil {
			return nil, err
		}
		defer func() { p.depth-- }()
		p.next()
		c, err := p.operands(q)
		if err != nil {
			return nil, err
		}
		return not(c), nil
	case t.keyword("("):
		v, err := p.group()
		if err != nil {
			return nil, err
		}
		return p.condition(v, t)
	}
	p.next()
	return p.operand(q, t)
}

// operand makes the condition for one operand.
func (p *parser) operand(q qualifier, t token) (*pred, error) {
	if !t.word {
		return nil, p.fail(t, "expected "+q.wants())
	}
	switch q.kind {
	case "port", "portrange":
		return p.port(q, t)
	case "proto":
		return p.proto(q, t)
	}
	return p.address(q, t)
}

func (q qualifier) wants() string {
	switch q.kind {
	case "port":
		return "a port number"
	case "portrange":
		return "a range of ports such as 8000-8080"
	case "proto":
		return "a protocol number or name"
	case "net":
		return "a network such as 10.0.0.0/8"
	}
	return "an address"
}

// proto is `proto N`: an EtherType after ether, an IP protocol otherwise.
func (p *parser) proto(q qualifier, t token) (*pred, error) {
	table := ipProtocols
	if q.proto == "ether" {
		table = etherTypes
	}
	n, ok := parseNumber(t.text)
	if !ok {
		if n, ok = table[t.text]; !ok {
			return nil, p.fail(t, "expected a protocol number, or a name such as "+
				map[bool]string{true: `ip, arp, ip6`, false: `tcp, udp, icmp`}[q.proto == "ether"])
		}
	}
	switch q.proto {
	case "":
		return p.gen.ipProto(n, true, true), nil
	case "ether":
		return p.gen.etherType(n), nil
	case "ip":
		return p.gen.ipProto(n, true, false), nil
	case "ip6":
		return p.gen.ipProto(n, false, true), nil
	}
	return nil, p.fail(t, q.proto+" carries no protocol that a filter can ask for")
}

// port is `port N` or `portrange N-M`, for the protocols that have ports.
func (p *parser) port(q qualifier, t token) (*pred, error) {
	f := families[q.proto]
	if q.proto != "" && !f.ports {
		return nil, p.fail(t, q.proto+" has no ports; use tcp, udp, sctp, or "+q.kind+" alone")
	}
	protos := []uint32{132, 6, 17}
	if f.ports {
		protos = []uint32{f.ip}
	}
	lo, hi := t.text, t.text
	if q.kind == "portrange" {
		if i := strings.LastIndexByte(t.text, '-'); i > 0 && services[t.text].port == 0 {
			lo, hi = t.text[:i], t.text[i+1:]
		}
	}
	first, protos, err := p.portNumber(q, t, lo, protos)
	if err != nil {
		return nil, err
	}
	last, protos, err := p.portNumber(q, t, hi, protos)
	if err != nil {
		return nil, err
	}
	return p.gen.ports(min(first, last), max(first, last), protos, q.dir), nil
}

// portNumber reads a number or the name of a service, which narrows the protocols.
func (p *parser) portNumber(q qualifier, t token, s string, protos []uint32) (uint32, []uint32, error) {
	if n, ok := parseNumber(s); ok {
		if n > 65535 {
			return 0, nil, p.fail(t, "a port number is at most 65535")
		}
		return n, protos, nil
	}
	v, ok := services[s]
	if !ok {
		return 0, nil, p.fail(t, "expected "+q.wants())
	}
	if v.tcp && v.udp {
		return v.port, protos, nil
	}
	only := uint32(6)
	if v.udp {
		only = 17
	}
	for _, n := range protos {
		if n == only {
			return v.port, []uint32{only}, nil
		}
	}
	return 0, nil, p.fail(t, s+" is a service over "+map[uint32]string{6: "tcp", 17: "udp"}[only]+" only, port "+strconv.Itoa(int(v.port)))
}
