package ranges

import (
	"slices"
	"strings"
)

// maxRuns bounds how many digit runs of a name are looked at, from its end,
// so that long names cost no more than their length.
const maxRuns = 4

// fold is a name with one of its digit runs taken out.
type fold struct {
	prefix, suffix string
	n              uint64
}

// Compact is the short form of a list of names: foo1.bar foo2.bar foo4.bar
// give foo[1-2,4].bar. One digit run of a name is folded, the one that the
// most names share; names that share none stay as they are. Groups come
// sorted and joined by commas. Folding loses leading zeros, and repetitions.
func Compact(names []string) string {
	names = sorted(names)
	choices := make([][]fold, len(names))
	sizes := map[[2]string]int{}
	for i, name := range names {
		choices[i] = folds(name)
		for _, f := range choices[i] {
			sizes[[2]string{f.prefix, f.suffix}]++
		}
	}
	var out []string
	groups := map[[2]string][]span{}
	single := map[[2]string]string{}
	for i, name := range names {
		f, ok := largest(choices[i], sizes)
		if !ok {
			out = append(out, name)
			continue
		}
		key := [2]string{f.prefix, f.suffix}
		groups[key] = append(groups[key], span{f.n, f.n})
		single[key] = name
	}
	for key, spans := range groups {
		out = append(out, group(key, spans, single[key]))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// group writes one folded group; a group of one is the name itself.
func group(key [2]string, spans []span, name string) string {
	if len(spans) == 1 {
		return name
	}
	spans = merge(spans)
	if len(spans) == 1 && spans[0].lo == spans[0].hi {
		return key[0] + body(spans) + key[1]
	}
	return key[0] + "[" + body(spans) + "]" + key[1]
}

// largest picks the fold that the most names share, the last one if equal.
func largest(choices []fold, sizes map[[2]string]int) (best fold, ok bool) {
	most := 1
	for _, f := range choices {
		if n := sizes[[2]string{f.prefix, f.suffix}]; n > most {
			most, best, ok = n, f, true
		}
	}
	return best, ok
}

// folds lists the ways to take a digit run out of a name, the last run first.
func folds(name string) []fold {
	if strings.ContainsAny(name, "[],") {
		return nil
	}
	var out []fold
	for end := len(name); end > 0 && len(out) < maxRuns; {
		if !digit(name[end-1]) {
			end--
			continue
		}
		start := end
		for start > 0 && digit(name[start-1]) {
			start--
		}
		if n, ok := number(name[start:end]); ok {
			out = append(out, fold{name[:start], name[end:], n})
		}
		end = start
	}
	return out
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
