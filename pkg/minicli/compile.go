package minicli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// MaxDepth bounds how deep commands nest.
const MaxDepth = 64

var errDepth = fmt.Errorf("commands nested deeper than %d", MaxDepth)

// Compile parses a line. A blank line gives nil and no error, a comment a
// command that is a Nop. An unknown or ambiguous command is a *CompileError;
// bad quotes and escapes, a line longer than MaxLine and nesting deeper than
// MaxDepth are plain errors.
func (c *CLI) Compile(line string) (*Command, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("line of %d bytes, at most %d are allowed", len(line), MaxLine)
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return nil, nil
	}
	if line[0] == '#' {
		return &Command{Original: line}, nil
	}
	var few [16]string
	toks, err := lex(line, few[:0])
	if err != nil {
		return nil, err
	}
	k := compiler{cli: c, toks: toks}
	cmd, err := k.at(0, 1)
	if err == errDepth {
		return nil, err
	}
	if err != nil {
		return nil, k.explain(line)
	}
	cmd.Original = line
	return cmd, nil
}

// Reasons why words are no command; explain turns them into a text.
var (
	errUnknown   = errors.New("unknown")
	errAmbiguous = errors.New("ambiguous")
)

// compiler compiles the words of one line. A nested command is always the
// rest of the line, so it is known by where it starts, and each start is
// compiled once however many patterns lead there.
type compiler struct {
	cli    *CLI
	toks   []string
	nested map[int]outcome
	joined string // the words rebuilt as a line, once something is nested
	starts []int  // where each word starts in joined
	unsure []int  // where commands start that were ambiguous
}

type outcome struct {
	cmd *Command
	err error
}

// at compiles the words from pos on. What was typed in the language's own
// case is tried first.
func (k *compiler) at(pos, depth int) (*Command, error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	if pos >= len(k.toks) {
		return nil, errUnknown
	}
	near := k.cli.starting(k.toks[pos])
	for _, t := range [...]try{{}, {fold: true}, {last: true}, {last: true, fold: true}} {
		if cmd, err := k.choose(near, pos, depth, t); err != errUnknown {
			return cmd, err
		}
	}
	return nil, errUnknown
}

// try is a way to look for a pattern: in any case, among those of handlers
// that come last.
type try struct{ fold, last bool }

// choose picks the pattern that fits: the only one, or the only one typed in full.
func (k *compiler) choose(near []*pattern, pos, depth int, t try) (*Command, error) {
	var found, exact *pattern
	var count, exacts int
	for _, list := range [2][]*pattern{near, k.cli.open} {
		for _, p := range list {
			if p.handler.Last != t.last {
				continue
			}
			ok, isExact, err := k.fits(p, pos, depth, t.fold)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			found, count = p, count+1
			if isExact {
				exact, exacts = p, exacts+1
			}
		}
	}
	switch {
	case count == 0:
		return nil, errUnknown
	case count == 1:
		return k.build(found, pos, t.fold), nil
	case exacts == 1:
		return k.build(exact, pos, t.fold), nil
	}
	k.unsure = append(k.unsure, pos)
	return nil, errAmbiguous
}

// fits reports whether the words from pos on fit the pattern, and whether all
// of them were typed in full. Only nesting too deep is an error.
func (k *compiler) fits(p *pattern, pos, depth int, fold bool) (ok, exact bool, err error) {
	toks := k.toks[pos:]
	n, exact := p.advance(toks, fold)
	at := p.nestedAt(n)
	if at < 0 {
		return p.complete(n, len(toks)), exact, nil
	}
	o, known := k.nested[pos+at]
	if !known {
		o.cmd, o.err = k.at(pos+at, depth+1)
		if o.err == errDepth {
			return false, false, errDepth
		}
		if k.nested == nil {
			k.nested = map[int]outcome{}
		}
		k.nested[pos+at] = o
	}
	return o.err == nil, exact, nil
}

func (k *compiler) build(p *pattern, pos int, fold bool) *Command {
	cmd := p.fill(k.toks[pos:], fold)
	for key, list := range cmd.Lists {
		cmd.Lists[key] = slices.Clone(list)
	}
	if last := len(p.items) - 1; p.items[last].Type&Nested != 0 {
		cmd.Sub = k.nested[pos+last].cmd
		cmd.Sub.Original = k.original(pos + last)
	}
	return cmd
}

// original rebuilds the text from the word at pos on. Words with a space in
// them are quoted as Go does, others stand as they are.
func (k *compiler) original(pos int) string {
	if k.starts == nil {
		var b strings.Builder
		for i, tok := range k.toks {
			if i > 0 {
				b.WriteByte(' ')
			}
			k.starts = append(k.starts, b.Len())
			if strings.IndexFunc(tok, unicode.IsSpace) >= 0 {
				tok = strconv.Quote(tok)
			}
			b.WriteString(tok)
		}
		k.joined = b.String()
	}
	return k.joined[k.starts[pos]:]
}
