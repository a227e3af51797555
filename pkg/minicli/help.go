package minicli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Help returns the help for the words of a command: without words the list of
// all entries, for one entry its usage and long help, for several their list.
// Words may be abbreviated.
func (c *CLI) Help(words []string) string {
	if len(words) == 0 {
		all := make([]int, len(c.handlers))
		for i := range all {
			all[i] = i
		}
		return "Commands, `help <command>` tells more:\n" + c.list(all)
	}
	found, exact := c.entries(words)
	switch {
	case len(found) == 0:
		return "no help entry for `" + strings.Join(words, " ") + "`"
	case len(found) == 1:
		return c.usage(found[0])
	case len(exact) == 0:
		return "Several commands begin like this:\n" + c.list(found)
	}
	var parts []string
	for _, i := range exact {
		parts = append(parts, c.usage(i))
	}
	others := slices.DeleteFunc(found, func(i int) bool { return slices.Contains(exact, i) })
	if len(others) > 0 {
		parts = append(parts, "See also:\n"+c.list(others))
	}
	return strings.Join(parts, "\n\n")
}

// entries finds the handlers with a pattern that begins with the words, and
// among them those whose common beginning the words are.
func (c *CLI) entries(words []string) (found, exact []int) {
	typed := lower(strings.Join(words, " "))
	for i := range c.handlers {
		fits := slices.ContainsFunc(c.parsed[i], func(p *pattern) bool {
			n, _ := p.advance(words, true)
			return n == len(words) || p.nestedAt(n) > 0
		})
		if fits {
			found = append(found, i)
		}
		if fits && lower(c.sharedPrefix(i)) == typed {
			exact = append(exact, i)
		}
	}
	return found, exact
}

// usage is the whole help of one handler.
func (c *CLI) usage(handler int) string {
	h := c.handlers[handler]
	text := "Usage:\n\t" + strings.Join(h.Patterns, "\n\t")
	if long := strings.TrimSpace(cmp.Or(h.HelpLong, h.HelpShort)); long != "" {
		text += "\n\n" + long
	}
	return text
}

// list has a line per handler, sorted.
func (c *CLI) list(handlers []int) string {
	type line struct{ name, short string }
	var lines []line
	width := 0
	for _, i := range handlers {
		l := line{cmp.Or(c.sharedPrefix(i), c.handlers[i].Patterns[0]), c.handlers[i].HelpShort}
		lines = append(lines, l)
		width = max(width, utf8.RuneCountInString(l.name))
	}
	slices.SortStableFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%-*s  :  %s", width, l.name, l.short)
	}
	return b.String()
}
