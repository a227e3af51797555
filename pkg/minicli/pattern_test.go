package minicli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBadPatterns(t *testing.T) {
	for _, text := range []string{
		"", "  ", "foo <bar", "foo [bar", "foo (command", "foo <>", "foo [ ]", "foo <,>", "foo <a,,b>", "foo <a,a>",
		"foo [bar] baz", "foo <bar>... baz", "foo (command) baz", "foo (other)", "foo [a] [b]", "foo (command)...",
		"foo <a> <a b>", "(command)", "foo]", "foo bar>", `foo "bar"`, "foo#", "foo <bar>x", "foo <bar>....", "foo <a<b>>",
	} {
		_, err := New(&Handler{Patterns: []string{"ok"}}, &Handler{Patterns: []string{text}})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) {
			t.Errorf("New with %q: error %v", text, err)
		}
	}
	if _, err := New(&Handler{Patterns: []string{"a <b>"}}, &Handler{Patterns: []string{"a  <b>"}}); err == nil {
		t.Error("a pattern may be there twice")
	}
	if _, err := New(nil); err == nil {
		t.Error("no handler is a handler")
	}
	if _, err := New(&Handler{}); err == nil {
		t.Error("a handler needs no pattern")
	}
}

func TestDump(t *testing.T) {
	c, err := New(
		&Handler{HelpShort: "short", HelpLong: "a <b>", Patterns: []string{"vm config <foo bar> <a,b> [c,]", "vm context"}},
		&Handler{Patterns: []string{".filter <filter> (command)"}},
		&Handler{Patterns: []string{"cc <exec,> <the command>...", "cc"}},
		&Handler{Patterns: []string{"log [size in lines]", "log filter [word,s]..."}},
	)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Dump()
	want := `[{"help_short":"short","help_long":"a \u003cb\u003e","patterns":["vm config \u003cfoo bar\u003e \u003ca,b\u003e [c,]","vm context"],"shared_prefix":"vm con","parsed_patterns":[` +
		`[{"type":2,"text":"vm"},{"type":2,"text":"config"},{"type":8,"key":"foo","text":"foo bar"},{"type":16,"text":"a,b","options":["a","b"]},{"type":17,"text":"c,","options":["c"]}],` +
		`[{"type":2,"text":"vm"},{"type":2,"text":"context"}]]},` +
		`{"help_short":"","help_long":"","patterns":[".filter \u003cfilter\u003e (command)"],"shared_prefix":".filter","parsed_patterns":[` +
		`[{"type":2,"text":".filter"},{"type":8,"key":"filter","text":"filter"},{"type":4,"key":"command","text":"command"}]]},` +
		`{"help_short":"","help_long":"","patterns":["cc \u003cexec,\u003e \u003cthe command\u003e...","cc"],"shared_prefix":"cc","parsed_patterns":[` +
		`[{"type":2,"text":"cc"},{"type":16,"text":"exec,","options":["exec"]},{"type":32,"key":"the","text":"the command"}],[{"type":2,"text":"cc"}]]},` +
		`{"help_short":"","help_long":"","patterns":["log [size in lines]","log filter [word,s]..."],"shared_prefix":"log","parsed_patterns":[` +
		`[{"type":2,"text":"log"},{"type":9,"key":"size","text":"size in lines"}],` +
		`[{"type":2,"text":"log"},{"type":2,"text":"filter"},{"type":33,"key":"word,s","text":"word,s"}]]}]`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	var back []entry
	if err := json.Unmarshal(got, &back); err != nil || len(back) != 4 {
		t.Errorf("%d entries, %v", len(back), err)
	}
	if h := c.Handlers(); len(h) != 4 || h[1].Patterns[0] != ".filter <filter> (command)" {
		t.Errorf("Handlers() = %v", h)
	}
}

// instance makes a line that the pattern must match: every word of the
// language in full, arguments that no other pattern has as a word.
func instance(t *rapid.T, p *pattern) string {
	var words []string
	argument := rapid.StringMatching(`[A-Z0-9][a-z0-9:/.]{0,5}Z`)
	for _, item := range p.items {
		if item.Type&Optional != 0 && rapid.Bool().Draw(t, "left out") {
			break
		}
		switch {
		case item.Type&Literal != 0:
			words = append(words, item.Text)
		case item.Type&Choice != 0:
			words = append(words, rapid.SampledFrom(item.Options).Draw(t, "option"))
		case item.Type&Nested != 0:
			words = append(words, "version")
		case item.Type&List != 0:
			words = append(words, rapid.SliceOfN(argument, 1, 3).Draw(t, "list")...)
		default:
			words = append(words, argument.Draw(t, "argument"))
		}
	}
	return strings.Join(words, " ")
}

// Every pattern matches what is made from it: that pattern is used, or the
// line fits another one as well, word by word.
func TestEveryPatternCompiles(t *testing.T) {
	c := language(t)
	for _, p := range c.patterns {
		rapid.Check(t, func(t *rapid.T) {
			line := instance(t, p)
			cmd, err := c.Compile(line)
			if err != nil {
				t.Fatalf("%q from %q: %v", line, p.text, err)
			}
			if cmd.Pattern == p.text {
				return
			}
			toks := strings.Fields(line)
			for _, other := range c.patterns {
				if other.text == cmd.Pattern {
					if n, exact := other.advance(toks, false); n == len(toks) && exact || other.nestedAt(n) >= 0 {
						return
					}
				}
			}
			t.Fatalf("%q from %q compiles to %q", line, p.text, cmd.Pattern)
		})
	}
}
