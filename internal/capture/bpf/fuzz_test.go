package bpf

import (
	"errors"
	"strings"
	"testing"

	xbpf "golang.org/x/net/bpf"
	"pgregory.net/rapid"
)

// FuzzCompile: no text makes the compiler panic, and what it accepts is a
// program within bounds that runs on any frame.
func FuzzCompile(f *testing.F) {
	for _, s := range filters {
		f.Add(s)
	}
	for _, c := range refused {
		f.Add(c.expr)
	}
	frames := [][]byte{nil, wholePackets()[0], tagged(wholePackets()[30], 0x8100, 5)}
	f.Fuzz(func(t *testing.T, expr string) {
		for _, tag := range []int{NoTag, 5} {
			p, err := CompileWith(expr, Options{Snaplen: 96, Tag: tag})
			if err != nil {
				var s *SyntaxError
				if !errors.As(err, &s) || s.Pos < 0 || s.Pos > len(expr) {
					t.Fatalf("error %#v", err)
				}
				continue
			}
			if n := len(p.Instructions); n == 0 || n > MaxInstructions {
				t.Fatalf("%d instructions", n)
			}
			run := machine(t, expr, p.Instructions)
			for _, frame := range frames {
				if n := run(frame); n != 0 && n != 96 {
					t.Fatalf("verdict %d", n)
				}
			}
		}
	})
}

// atoms are the conditions that random filters are made of.
var atoms = func() (a []string) {
	for _, f := range filters {
		if f != "" && !strings.Contains(f, "vlan") {
			a = append(a, "("+f+")")
		}
	}
	return append(a, "ip", "tcp", "udp port 53", "not arp", "vlan", "vlan 5", "ip[0] & 0xf", "len", "7", "tcp[13]", "port 80")
}()

// Filters put together at random get the same verdicts as from tcpdump, or are
// refused by both.
func TestRandomFiltersAgree(t *testing.T) {
	frames := packets()
	accepted := 0
	rapid.Check(t, func(r *rapid.T) {
		words := rapid.SliceOfN(rapid.SampledFrom(atoms), 1, 6).Draw(r, "atoms")
		joints := rapid.SliceOfN(rapid.SampledFrom([]string{" and ", " or ", " and not ", " = ", " > ", " or (ip and "}), 6, 6).Draw(r, "joints")
		var b strings.Builder
		for i, w := range words {
			b.WriteString(w)
			if i < len(words)-1 {
				b.WriteString(joints[i])
			}
		}
		expr := b.String() + strings.Repeat(")", strings.Count(b.String(), "(")-strings.Count(b.String(), ")"))
		prog, err := Compile(expr, 262144)
		theirs := tcpdumpTakes(expr)
		if (err == nil) != theirs {
			r.Fatalf("%q: tcpdump takes it: %v, ours: %v", expr, theirs, err)
		}
		if err == nil {
			accepted++
			compareWith(t, expr, prog, frames)
			if t.Failed() {
				r.Fatalf("%q", expr)
			}
		}
	})
	if accepted == 0 {
		t.Error("no filter was accepted")
	}
}

// FromLinks selects by interface and direction. The VM cannot run the kernel's
// loads; the capture tests run such programs in the kernel.
func TestFromLinksIsBounded(t *testing.T) {
	prog, err := Compile("tcp port 80", 100)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]int, 900)
	for i := range many {
		many[i] = 3 * i
	}
	p, err := FromLinks(many, []int{5, 6}, PassTagged(prog))
	if err != nil || len(p) > MaxInstructions {
		t.Fatalf("%d instructions: %v", len(p), err)
	}
	if _, ok := xbpf.Disassemble(p); !ok {
		t.Error("program has unknown instructions")
	}
	if _, err := FromLinks(make([]int, 0), nil, prog); err != nil {
		t.Error(err)
	}
	for i := range 5000 {
		many = append(many, 10000+i)
	}
	if _, err := FromLinks(many, nil, prog); err == nil {
		t.Error("too many links were accepted")
	}
}
