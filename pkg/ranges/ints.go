package ranges

import (
	"slices"
	"strconv"
	"strings"
)

// Ints expands 0-3,8 into sorted numbers without repetitions. No spaces, no
// brackets, no empty parts; errors as for Split.
func Ints(spec string) ([]int, error) {
	spans, _, err := parse(spec)
	if err != nil {
		return nil, err
	}
	var total uint64
	for _, s := range spans {
		if total += s.hi - s.lo + 1; total > MaxNames {
			return nil, errCount
		}
	}
	numbers := make([]int, 0, total)
	for _, s := range spans {
		for n := s.lo; n <= s.hi; n++ {
			numbers = append(numbers, int(n))
		}
	}
	return numbers, nil
}

// CompactInts is the short form of numbers, sorted and without repetitions:
// 0-3,8. None give "". Negative numbers are left out.
func CompactInts(numbers []int) string {
	spans := make([]span, 0, len(numbers))
	for _, n := range numbers {
		if n >= 0 {
			spans = append(spans, span{uint64(n), uint64(n)})
		}
	}
	return body(merge(spans))
}

// body writes what stands in a bracket.
func body(spans []span) string {
	var b strings.Builder
	for i, s := range spans {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(s.lo, 10))
		if s.hi > s.lo {
			b.WriteByte('-')
			b.WriteString(strconv.FormatUint(s.hi, 10))
		}
	}
	return b.String()
}

// sorted returns a sorted copy without repetitions.
func sorted(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return slices.Compact(out)
}
