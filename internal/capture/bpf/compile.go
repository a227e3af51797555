// Package bpf compiles the filter language of pcap-filter(7) to classic BPF
// programs for Ethernet frames. It covers what concerns Ethernet and IP; what
// it does not cover is an error that says so, never a program that matches
// something else. The semantics are those of libpcap on a saved file, odd
// corners included, and tests compare the verdicts with tcpdump's. One corner
// is left out: in `len + ip[8] > 9` libpcap forgets that this concerns IP only.
package bpf

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// Bounds on what a filter may be. The kernel takes 4096 instructions.
const (
	MaxFilter       = 16384 // bytes of text
	MaxInstructions = 4000  // leaves room for what an engine puts in front
	maxNesting      = 64
)

// DefaultSnaplen is what an accepted packet is cut to when none is given, in bytes.
const DefaultSnaplen = 262144

// NoTag is the Options.Tag of frames that carry their tags, if any, in themselves.
const NoTag = -1

// Options change how a filter is compiled.
type Options struct {
	Snaplen int // bytes an accepted packet is cut to; 0 means DefaultSnaplen
	// Tag is the VLAN that all frames belong to without saying so, or NoTag.
	// The first `vlan` of a filter then asks for this number, and what follows
	// it does not move by four bytes.
	Tag int
}

// Program is a compiled filter.
type Program struct {
	Instructions []bpf.RawInstruction
	VLAN         bool // the filter asks for a VLAN, so its verdict may depend on Options.Tag
}

// Compile compiles a filter. The empty filter accepts everything. The program
// returns snaplen for a frame that matches and 0 for one that does not. The
// error is a *SyntaxError.
func Compile(expr string, snaplen int) ([]bpf.RawInstruction, error) {
	p, err := CompileWith(expr, Options{Snaplen: snaplen, Tag: NoTag})
	return p.Instructions, err
}

// CompileWith compiles a filter as o says.
func CompileWith(expr string, o Options) (Program, error) {
	if len(expr) > MaxFilter {
		return Program{}, &SyntaxError{Msg: fmt.Sprintf("the filter has %d bytes, more than the %d possible", len(expr), MaxFilter)}
	}
	if o.Snaplen <= 0 {
		o.Snaplen = DefaultSnaplen
	}
	toks, err := scan(expr)
	if err != nil {
		return Program{}, err
	}
	p := parser{toks: toks, gen: gen{tag: o.Tag, linkType: 12, network: 14}}
	root, err := p.filter()
	if err != nil {
		return Program{}, err
	}
	ins, err := assemble(root, ins{Op: ret, K: uint32(o.Snaplen)})
	if err != nil {
		return Program{}, err
	}
	return Program{Instructions: ins, VLAN: p.gen.vlans > 0}, nil
}

// SyntaxError says where a filter is wrong and what would be right there.
type SyntaxError struct {
	Pos   int    // byte offset of the token, from 0
	Token string // what stands there; "" for the end of the filter or the filter as a whole
	Msg   string
}

func (e *SyntaxError) Error() string {
	switch {
	case e.Token != "":
		return fmt.Sprintf("filter: at position %d, %q: %s", e.Pos+1, clip(e.Token), e.Msg)
	case e.Pos > 0:
		return fmt.Sprintf("filter: at its end: %s", e.Msg)
	}
	return "filter: " + e.Msg
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
