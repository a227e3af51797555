package minicli

import (
	_ "embed"
	"strings"
	"testing"
)

//go:embed testdata/patterns.txt
var patternList string

// language is a CLI with the patterns of testdata: one handler per run of
// patterns that begin with the same two words.
func language(t testing.TB) *CLI {
	t.Helper()
	var handlers []*Handler
	last := ""
	for _, text := range strings.Split(strings.TrimSpace(patternList), "\n") {
		words := strings.Fields(text + " -")
		if key := words[0] + " " + words[1]; key != last || last == "vm config" {
			last = key
			handlers = append(handlers, &Handler{HelpShort: "about " + key, HelpLong: "All about " + key + "."})
		}
		h := handlers[len(handlers)-1]
		h.Patterns = append(h.Patterns, text)
	}
	c, err := New(handlers...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustCompile(t testing.TB, c *CLI, line string) *Command {
	t.Helper()
	cmd, err := c.Compile(line)
	if err != nil || cmd == nil {
		t.Fatalf("Compile(%q) = %v, %v", line, cmd, err)
	}
	return cmd
}
