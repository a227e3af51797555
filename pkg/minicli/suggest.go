package minicli

import (
	"slices"
	"strings"
)

// Values proposes words for a placeholder. It gets the handler whose pattern
// is being typed, the placeholder's key (its first word) and whole text
// ("vm target"), the beginning that is typed already, and the command so far.
// That is the outermost one; its Sub leads to the one that is being typed
// (Innermost), as with `namespace foo vm start `. The arguments that are not
// typed yet are missing in it. Words that do not start with prefix are
// dropped by the caller.
type Values func(h *Handler, key, text, prefix string, sofar *Command) []string

// Suggest completes the last word of the line, an empty one after a space. It
// returns whole words to put in its place (LastWord tells where), sorted and
// each once, quoted where they have to be. Words of the language are completed
// in any case, values of placeholders by the function, which may be nil.
func (c *CLI) Suggest(line string, values Values) []string {
	if len(line) > MaxLine {
		return nil
	}
	start, word, ok := LastWord(line)
	if !ok {
		return nil
	}
	toks, err := lex(line[:start], nil)
	if err != nil {
		return nil
	}
	w := walker{cli: c, toks: toks, enter: true}
	w.walk(0, 1, nil)
	s := suggestion{toks: toks, word: word, values: values, asked: map[question]bool{}}
	for _, spot := range w.farthest() {
		if spot.end() == len(toks) {
			s.at(spot)
		}
	}
	slices.Sort(s.words)
	return slices.Compact(s.words)
}

// suggestion gathers the words that may stand at the end of toks.
type suggestion struct {
	toks   []string
	word   string
	values Values
	asked  map[question]bool
	words  []string
}

// question is what is asked once only, however many patterns share it.
type question struct {
	handler *Handler
	text    string
	outer   *spot
}

func (s *suggestion) at(spot *spot) {
	switch item := spot.item(); {
	case item == nil:
	case item.Type&Literal != 0:
		s.language(item.Text)
	case item.Type&Choice != 0:
		for _, option := range item.Options {
			s.language(option)
		}
	case item.Type&(String|List) != 0:
		s.ask(spot, item)
	}
}

func (s *suggestion) language(word string) {
	if hasPrefixFold(word, s.word) {
		s.words = append(s.words, word)
	}
}

func (s *suggestion) ask(spot *spot, item *Item) {
	q := question{spot.p.handler, item.Text, spot.outer}
	if s.values == nil || s.asked[q] {
		return
	}
	s.asked[q] = true
	for _, word := range s.values(spot.p.handler, item.Key, item.Text, s.word, spot.command(s.toks)) {
		if strings.HasPrefix(word, s.word) {
			s.words = append(s.words, QuoteWord(word))
		}
	}
}

// command makes a command of the words up to the spot, with those around it.
func (s *spot) command(toks []string) *Command {
	var sub *Command
	for ; s != nil; s = s.outer {
		c := s.p.fill(toks[s.from:s.end()], true)
		c.Sub = sub
		sub = c
	}
	return sub
}

// Innermost returns the command at the end of the chain of nested ones, c
// itself if nothing is nested.
func (c *Command) Innermost() *Command {
	for c.Sub != nil {
		c = c.Sub
	}
	return c
}
