package minicli

import (
	"maps"
	"slices"
	"strings"
)

// Line writes the command such that compiling it with the same language gives
// it back, arguments and all: literals and options in full, every argument
// quoted where it must be. Unlike Original it holds what became of the
// arguments since. A comment is its text.
func (c *Command) Line() string {
	if c.Nop() {
		return c.Original
	}
	items, err := parsePattern(c.Pattern)
	if err != nil { // of a command that no CLI made
		return c.Original
	}
	var words []string
	for i := range items {
		words = append(words, c.words(&items[i])...)
	}
	return strings.Join(words, " ")
}

// words are what stands for one piece of the pattern: none for an option left out.
func (c *Command) words(item *Item) []string {
	switch {
	case item.Type&Literal != 0:
		return []string{item.Text}
	case item.Type&Choice != 0:
		for _, option := range item.Options {
			if c.Choices[option] {
				return []string{option}
			}
		}
	case item.Type&String != 0:
		if value, ok := c.Strings[item.Key]; ok {
			return []string{QuoteWord(value)}
		}
	case item.Type&List != 0:
		words := make([]string, len(c.Lists[item.Key]))
		for i, w := range c.Lists[item.Key] {
			words[i] = QuoteWord(w)
		}
		return words
	case item.Type&Nested != 0 && c.Sub != nil:
		return []string{c.Sub.Line()}
	}
	return nil
}

// Clone returns a copy whose arguments can be changed without changing those
// of c, nested commands included.
func (c *Command) Clone() *Command {
	if c == nil {
		return nil
	}
	n := *c
	n.Strings, n.Choices, n.Sub = maps.Clone(c.Strings), maps.Clone(c.Choices), c.Sub.Clone()
	n.Lists = maps.Clone(c.Lists)
	for key, list := range n.Lists {
		n.Lists[key] = slices.Clone(list)
	}
	return &n
}
