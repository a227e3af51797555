// Package doc makes the reference of all commands out of the language itself.
package doc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// entry is a handler in the shape of `minimega -cli`.
type entry struct {
	Short    string   `json:"help_short"`
	Long     string   `json:"help_long"`
	Patterns []string `json:"patterns"`
	Prefix   string   `json:"shared_prefix"`
}

// Reference turns what `minimega -cli` prints into a Markdown page.
func Reference(dump []byte) ([]byte, error) {
	var entries []entry
	if err := json.Unmarshal(dump, &entries); err != nil {
		return nil, fmt.Errorf("reading the list of commands: %w", err)
	}
	families := map[string][]entry{}
	for _, e := range entries {
		f := family(e.Patterns[0])
		families[f] = append(families[f], e)
	}
	var names []string
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)

	var b strings.Builder
	b.WriteString("# Commands\n\nMade from the program by `make docs`; `help` tells the same at the prompt.\n\n" +
		"In a pattern, `<x>` stands for one word, `[x]` for one that may be left out, `<a,b>` for one of several, `...` for all\n" +
		"that follows, `(command)` for a whole command. Every word of a command may be shortened as long as it stays clear\n" +
		"which one is meant.\n\n")
	for _, n := range names {
		fmt.Fprintf(&b, "- [%s](#%s)\n", n, anchor(n))
	}
	for _, n := range names {
		fmt.Fprintf(&b, "\n## %s\n", n)
		for _, e := range families[n] {
			b.WriteString("\n```\n" + strings.Join(e.Patterns, "\n") + "\n```\n\n" + text(e) + "\n")
		}
	}
	return []byte(b.String()), nil
}

// family is the heading that a command stands under: its first word, or what
// it clears.
func family(pattern string) string {
	words := strings.Fields(pattern)
	switch {
	case strings.HasPrefix(pattern, "."):
		return "output and input (. commands)"
	case words[0] == "clear" && len(words) > 1:
		return family(strings.Join(words[1:], " "))
	case words[0] == "vm" && len(words) > 1 && words[1] == "config":
		return "vm config"
	}
	return words[0]
}

func anchor(heading string) string {
	keep := func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		}
		return -1
	}
	return strings.Map(keep, strings.ToLower(heading))
}

// text is the help of an entry as Markdown: plain text whose angle brackets
// and line ends stay.
func text(e entry) string {
	t := strings.TrimSpace(e.Long)
	if t == "" {
		t = e.Short
	}
	var b strings.Builder
	inCode := false
	for _, r := range t {
		switch {
		case r == '`':
			inCode = !inCode
		case r == '<' && !inCode:
			b.WriteString("&lt;")
			continue
		case r == '\n':
			b.WriteString("  ")
		}
		b.WriteRune(r)
	}
	return b.String()
}
