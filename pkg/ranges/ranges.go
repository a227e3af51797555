// Package ranges reads and writes the short form of lists of names and
// numbers: foo[0-9,12],bar and 0-3,8. It bounds what it expands, so it may
// be given text from anywhere.
package ranges

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxNames bounds how many names one specification may expand to.
const MaxNames = 1_000_000

var (
	errSpec  = errors.New("invalid range specification")
	errCount = fmt.Errorf("range expands to more than %d names", MaxNames)
)

// Split expands a comma separated list whose elements may end in one bracket
// of numbers: foo[1-3,5],bar gives foo1 foo2 foo3 foo5 bar. The numbers of a
// bracket come sorted and once; leading zeros stay when all numbers have the
// same width. Elements keep their order, empty ones and repetitions are left
// out. More than MaxNames names, a bracket in the wrong place and anything
// that is no number in a bracket are errors.
func Split(spec string) ([]string, error) {
	names, err := Expand(spec)
	return unique(names), err
}

// Expand is Split for those to whom it matters that a name comes twice.
func Expand(spec string) ([]string, error) {
	elements, err := cut(spec)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range elements {
		if names, err = e.expand(names); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// element is one part of a list: a name, or a prefix and what its bracket holds.
type element struct {
	prefix, body string
	bracket      bool
}

// cut splits at the commas outside brackets.
func cut(spec string) ([]element, error) {
	var elements []element
	start, open, closed := 0, -1, false
	end := func(i int) {
		switch {
		case closed:
			elements = append(elements, element{prefix: spec[start:open], body: spec[open+1 : i-1], bracket: true})
		case i > start:
			elements = append(elements, element{prefix: spec[start:i]})
		}
		start, open, closed = i+1, -1, false
	}
	for i := 0; i < len(spec); i++ {
		c := spec[i]
		inside := open >= 0 && !closed
		switch {
		case c == '[' && inside:
			return nil, fmt.Errorf("nested '[' at char %d", i)
		case c == ']' && !inside:
			return nil, fmt.Errorf("unmatched ']' at char %d", i)
		case c == ',' && !inside:
			end(i)
		case closed:
			return nil, errSpec
		case c == '[':
			open = i
		case c == ']':
			closed = true
		}
	}
	if open >= 0 && !closed {
		return nil, errors.New("unterminated '['")
	}
	end(len(spec))
	return elements, nil
}

// expand appends the element's names to names.
func (e element) expand(names []string) ([]string, error) {
	if !e.bracket {
		if len(names) >= MaxNames {
			return nil, errCount
		}
		return append(names, e.prefix), nil
	}
	spans, width, err := parse(e.body)
	if err != nil {
		return nil, err
	}
	total := uint64(len(names))
	for _, s := range spans {
		if total += s.hi - s.lo + 1; total > MaxNames {
			return nil, errCount
		}
	}
	names = slices.Grow(names, int(total)-len(names))
	for _, s := range spans {
		for n := s.lo; n <= s.hi; n++ {
			names = append(names, e.prefix+padded(n, width))
		}
	}
	return names, nil
}

func padded(n uint64, width int) string {
	digits := strconv.FormatUint(n, 10)
	if len(digits) >= width {
		return digits
	}
	return strings.Repeat("0", width-len(digits)) + digits
}

// span is the numbers from lo to hi, both included.
type span struct{ lo, hi uint64 }

// maxNumber keeps sums of two numbers far from overflow.
const maxNumber = 1 << 53

// parse reads "1-3,5" into sorted spans that neither overlap nor touch, and
// the width that all numbers share, 0 when they differ.
func parse(body string) (spans []span, width int, err error) {
	width = -1
	for _, part := range strings.Split(body, ",") {
		lo, hi, isSpan := strings.Cut(part, "-")
		if !isSpan {
			hi = lo
		}
		a, okA := number(lo)
		b, okB := number(hi)
		if !okA || !okB || a > b {
			return nil, 0, fmt.Errorf("invalid subrange %s", part)
		}
		spans = append(spans, span{a, b})
		for _, digits := range []string{lo, hi} {
			if width == -1 {
				width = len(digits)
			}
			if width != len(digits) {
				width = 0
			}
		}
	}
	return merge(spans), width, nil
}

// number reads decimal digits, nothing else.
func number(s string) (uint64, bool) {
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= maxNumber && len(s) <= 32
}

// merge sorts spans and joins those that overlap or touch.
func merge(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	out := spans[:0]
	for _, s := range spans {
		if n := len(out); n > 0 && s.lo <= out[n-1].hi+1 {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, s)
	}
	return out
}

// unique drops repetitions and keeps the order.
func unique(names []string) []string {
	seen := make(map[string]struct{}, len(names))
	out := names[:0]
	for _, name := range names {
		if _, ok := seen[name]; !ok {
			seen[name] = struct{}{}
			out = append(out, name)
		}
	}
	return out
}
