package minicli

import (
	"encoding/json"
	"strings"
)

// entry is one handler in the dump.
type entry struct {
	HelpShort    string   `json:"help_short"`
	HelpLong     string   `json:"help_long"`
	Patterns     []string `json:"patterns"`
	SharedPrefix string   `json:"shared_prefix"`
	Parsed       [][]Item `json:"parsed_patterns"`
}

// Dump describes the language as one line of JSON without a line end: an
// array with one element per handler, in order of registration.
func (c *CLI) Dump() ([]byte, error) {
	entries := make([]entry, 0, len(c.handlers))
	for i, h := range c.handlers {
		e := entry{h.HelpShort, h.HelpLong, h.Patterns, c.sharedPrefix(i), nil}
		for _, p := range c.parsed[i] {
			e.Parsed = append(e.Parsed, p.items)
		}
		entries = append(entries, e)
	}
	return json.Marshal(entries)
}

// sharedPrefix is what the leading literals of all patterns of a handler have
// in common, letter by letter.
func (c *CLI) sharedPrefix(handler int) string {
	shared := ""
	for i, p := range c.parsed[handler] {
		lead := p.lead()
		if i == 0 {
			shared = lead
		}
		for !strings.HasPrefix(lead, shared) {
			shared = shared[:len(shared)-1]
		}
	}
	return strings.TrimSpace(shared)
}

// lead joins the literals that the pattern begins with.
func (p *pattern) lead() string {
	var words []string
	for _, item := range p.items {
		if item.Type != Literal {
			break
		}
		words = append(words, item.Text)
	}
	return strings.Join(words, " ")
}
