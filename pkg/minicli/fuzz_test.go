package minicli

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

// Lines that are made to cost much cost little.
func TestHostileLines(t *testing.T) {
	c := language(t)
	many := func(s string, n int) string { return strings.Repeat(s, n) }
	start := time.Now()
	for _, line := range []string{
		many(". true ", 60), many(". true ", 1e5), many(".json true ", 1e5), many("namespace x ", 8e4),
		many(`"" `, 3e5), many("a ", 5e5), many("a", MaxLine), many("vm ", 3e5), many(`\n`, 5e5), many(`'"'`, 3e5),
		many("é ", 3e5), "shell " + many("x ", 5e5), many("x", MaxLine+1), many(". t ", 31) + "version", "vm " + many("x", 1e6),
		many("\x00", MaxLine), many("\xff ", MaxLine/2),
	} {
		_, err := c.Compile(line)
		if err != nil && len(err.Error()) > 2*len(line)+4096 {
			t.Errorf("an error of %d bytes for a line of %d", len(err.Error()), len(line))
		}
		c.Suggest(line, func(*Handler, string, string, string, *Command) []string { return nil })
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestDepth(t *testing.T) {
	c := language(t)
	deep := strings.Repeat(".json true ", MaxDepth-1) + "version"
	if cmd := mustCompile(t, c, deep); cmd.Innermost().Pattern != "version" || cmd.Sub.Original != deep[len(".json true "):] {
		t.Errorf("innermost is %q", cmd.Innermost().Pattern)
	}
	if _, err := c.Compile(".json true " + deep); err != errDepth {
		t.Errorf("one deeper: %v", err)
	}
	if _, err := c.Compile(strings.Repeat("x", MaxLine+1)); err == nil || err.Error() != "line of 1048577 bytes, at most 1048576 are allowed" {
		t.Errorf("a long line: %.100v", err)
	}
}

var seeds = []string{
	"version", "vm config net a,b 'c d' # e", `shell "a\n" \x`, ".json true .filter name=x vm info", "mesh send all namespace foo vm kill a[1-3]",
	"vm config s", "Vnc record fb foo x", `"" '' "`, "#", "\\", ". t . t . t version", "namespace \xff \u2028 v", "cc exec ls -l", "vm net bond a 0 balance",
}

func FuzzCompile(f *testing.F) {
	c := language(f)
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		cmd, err := c.Compile(line)
		if blank := strings.TrimSpace(line) == ""; (cmd == nil && err == nil) != blank && len(line) <= MaxLine {
			t.Fatalf("command %v, error %v", cmd, err)
		}
		if err != nil && err.Error() == "" || err != nil && cmd != nil {
			t.Fatal("error without a text, or with a command")
		}
		if cmd == nil || cmd.Nop() {
			return
		}
		if cmd.Original != strings.TrimSpace(line) {
			t.Fatalf("original %q", cmd.Original)
		}
		again, err := c.Compile(cmd.Original)
		if err != nil || again.Pattern != cmd.Pattern {
			t.Fatalf("compiled again: %v, %v", again, err)
		}
		checkLine(t, c, cmd)
	})
}

func FuzzSuggest(f *testing.F) {
	c := language(f)
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		values := func(h *Handler, key, text, prefix string, sofar *Command) []string {
			if h == nil || key == "" || sofar == nil || sofar.Innermost().Handler != h {
				t.Fatalf("asked for %q of %v, %v", key, h, sofar)
			}
			return []string{prefix, prefix + " x", "y"}
		}
		got := c.Suggest(line, values)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("not sorted, or not each once: %q", got)
		}
	})
}

func FuzzLex(f *testing.F) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		toks, err := lex(line, nil)
		start, word, ok := LastWord(line)
		if start < 0 || start > len(line) {
			t.Fatalf("the last word starts at %d", start)
		}
		ended := err == nil && strings.TrimRightFunc(line, unicode.IsSpace) == line
		if ended && ok && line != "" && (len(toks) == 0 || toks[len(toks)-1] != word) {
			t.Fatalf("%q ends in %q", toks, word)
		}
		for i, tok := range toks {
			toks[i] = QuoteWord(tok)
		}
		if again, err := lex(strings.Join(toks, " "), nil); err != nil || len(again) != len(toks) {
			t.Fatalf("%q, %v", again, err)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"a=b", "host!~x", "name~[", "=", "!~", "a!=b=c"} {
		f.Add(seed, "a,name", "x")
	}
	f.Fuzz(func(t *testing.T, spec, header, cell string) {
		r := tabular("h", header, cell)
		filter, err := ParseFilter(spec)
		if err != nil {
			return
		}
		rs, err := filter.Apply(Responses{r, nil, simple("x", cell)})
		if err != nil {
			return
		}
		rs.Render(DefaultFlags())
		if _, err := Columns(Responses{r}, SplitColumns(spec)); err == nil && len(spec) == 0 && strings.Contains(header, ",") {
			t.Fatal("no name is a name")
		}
	})
}

func FuzzPattern(f *testing.F) {
	for _, seed := range strings.Split(patternList, "\n") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := New(&Handler{Patterns: []string{text}})
		if err != nil {
			return
		}
		if _, err := c.Dump(); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Compile(text)
		c.Suggest(text, nil)
		c.Help(strings.Fields(text))
	})
}
