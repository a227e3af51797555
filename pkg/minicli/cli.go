package minicli

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// CLI is the language that a set of handlers defines.
type CLI struct {
	handlers []*Handler
	parsed   [][]*pattern // per handler, in order
	patterns []*pattern   // those that begin with a literal, sorted by it
	firsts   []string     // their first words in lower case
	open     []*pattern   // those that begin with a placeholder
}

// New parses and checks all patterns. A pattern that is no pattern, or that
// occurs twice, is an error that names it. The handlers must not change
// afterwards.
func New(handlers ...*Handler) (*CLI, error) {
	c := &CLI{handlers: slices.Clone(handlers)}
	seen := map[string]bool{}
	for i, h := range handlers {
		if h == nil || len(h.Patterns) == 0 {
			return nil, fmt.Errorf("handler %d has no patterns", i)
		}
		var parsed []*pattern
		for _, text := range h.Patterns {
			items, err := parsePattern(text)
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", text, err)
			}
			if key := strings.Join(strings.Fields(text), " "); seen[key] {
				return nil, fmt.Errorf("pattern %q is there twice", text)
			} else {
				seen[key] = true
			}
			parsed = append(parsed, c.add(&pattern{text: text, handler: h, items: items, order: len(seen)}))
		}
		c.parsed = append(c.parsed, parsed)
	}
	c.index()
	return c, nil
}

func (c *CLI) add(p *pattern) *pattern {
	if p.items[0].Type == Literal {
		c.patterns = append(c.patterns, p)
	} else {
		c.open = append(c.open, p)
	}
	return p
}

func (c *CLI) index() {
	slices.SortStableFunc(c.patterns, func(a, b *pattern) int {
		return strings.Compare(lower(a.items[0].Text), lower(b.items[0].Text))
	})
	for _, p := range c.patterns {
		c.firsts = append(c.firsts, lower(p.items[0].Text))
	}
}

// Handlers returns the handlers in order of registration.
func (c *CLI) Handlers() []*Handler { return slices.Clone(c.handlers) }

// starting returns the patterns whose first word starts with word, in any case.
func (c *CLI) starting(word string) []*pattern {
	word = lower(word)
	from := sort.SearchStrings(c.firsts, word)
	to := from
	for to < len(c.firsts) && strings.HasPrefix(c.firsts[to], word) {
		to++
	}
	return c.patterns[from:to]
}

// lower lowers ASCII letters and leaves every other byte as it is.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return lowered(s)
		}
	}
	return s
}

func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// hasPrefixFold is strings.HasPrefix without regard to the case of ASCII letters.
func hasPrefixFold(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := 0; i < len(prefix); i++ {
		if lowerByte(s[i]) != lowerByte(prefix[i]) {
			return false
		}
	}
	return true
}
