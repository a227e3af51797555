package minicli

import (
	"slices"
	"strings"
)

// MaxCandidates bounds how many candidates an error names.
const MaxCandidates = 8

// CompileError says that a line is no command, or several.
type CompileError struct {
	Input      string   // the trimmed line
	Candidates []string // commands or patterns that may have been meant, at most MaxCandidates
	Ambiguous  bool     // the line stands for each of the candidates
	lead       string   // what introduces the candidates
	more       bool     // there are more candidates
}

// Error is a first line that is always the same, and after it the candidates.
func (e *CompileError) Error() string {
	text := "invalid command: `" + e.Input + "`"
	if len(e.Candidates) == 0 {
		return text
	}
	list := slices.Clone(e.Candidates)
	if e.more {
		list = append(list, "...")
	}
	if e.lead == leadUsage {
		return text + "\n" + leadUsage + strings.Join(list, "\n"+strings.Repeat(" ", len(leadUsage)))
	}
	return text + "\n" + e.lead + strings.Join(list, ", ")
}

const (
	leadAmbiguous = "ambiguous: it could be "
	leadNear      = "did you mean: "
	leadNext      = "it could go on as: "
	leadUsage     = "usage: "
)

func (e *CompileError) add(lead string, candidates []string) *CompileError {
	e.lead, e.Candidates = lead, candidates
	if len(candidates) > MaxCandidates {
		e.Candidates, e.more = candidates[:MaxCandidates], true
	}
	return e
}

// explain makes an error of a line that did not compile.
func (k *compiler) explain(line string) error {
	e := &CompileError{Input: line}
	if len(k.unsure) > 0 {
		e.Ambiguous = true
		return e.add(leadAmbiguous, k.candidates(slices.Max(k.unsure)))
	}
	w := walker{cli: k.cli, toks: slices.Clone(k.toks)}
	w.walk(0, 1, nil)
	spots := w.farthest()
	if len(spots) == 0 {
		return e
	}
	slices.SortStableFunc(spots, func(a, b *spot) int { return a.p.order - b.p.order })
	next := continuations(w.toks, spots)
	if at := spots[0].end(); at < len(w.toks) {
		if near := nearest(next, w.toks[at]); len(near) > 0 {
			return e.add(leadNear, near)
		}
	}
	if spots[0].n == 0 {
		return e
	}
	if usage := patternsOf(spots); len(usage) <= MaxCandidates || len(next) == 0 {
		return e.add(leadUsage, usage)
	}
	return e.add(leadNext, texts(next))
}

// candidates lists what an ambiguous command at pos could be.
func (k *compiler) candidates(pos int) []string {
	var list, patterns []string
	for _, fold := range [2]bool{false, true} {
		for _, near := range [2][]*pattern{k.cli.starting(k.toks[pos]), k.cli.open} {
			for _, p := range near {
				if ok, _, err := k.fits(p, pos, 1, fold); ok && err == nil {
					list = append(list, p.spell(k.toks[pos:], len(k.toks)-pos))
					patterns = append(patterns, p.text)
				}
			}
		}
		if len(list) > 0 {
			break
		}
	}
	slices.Sort(list)
	if list = slices.Compact(list); len(list) > 1 {
		return list
	}
	return patterns
}

// continuation is a word of the language that may stand at a spot.
type continuation struct{ lead, word string }

func (c continuation) text() string {
	if c.lead == "" {
		return c.word
	}
	return c.lead + " " + c.word
}

func texts(list []continuation) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.text())
	}
	return out
}

// continuations lists the words of the language that may stand at the spots,
// each once, in order.
func continuations(toks []string, spots []*spot) []continuation {
	var out []continuation
	seen := map[continuation]bool{}
	for _, s := range spots {
		item := s.item()
		if item == nil {
			continue
		}
		words := item.Options
		if item.Type&Literal != 0 {
			words = []string{item.Text}
		}
		for _, word := range words {
			c := continuation{s.p.spell(toks[s.from:], s.n), word}
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	return out
}

// patternsOf lists the patterns of the spots, each once.
func patternsOf(spots []*spot) []string {
	var out []string
	for _, s := range spots {
		if !slices.Contains(out, s.p.text) {
			out = append(out, s.p.text)
		}
	}
	return out
}
