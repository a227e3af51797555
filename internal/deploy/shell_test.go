package deploy

import (
	"os/exec"
	"strings"
	"testing"
	"unicode"
)

// through gives words to a shell and returns what it makes of them.
func through(t testing.TB, shell, script string, args ...string) string {
	t.Helper()
	out, err := exec.Command(shell, "-c", sh(script, args...)).Output()
	if err != nil {
		t.Fatalf("%s: %v", shell, err)
	}
	return string(out)
}

const echo = `for w; do printf '<%s>' "$w"; done`

func TestQuote(t *testing.T) {
	for in, want := range map[string]string{
		"":         "''",
		"plain":    "plain",
		"/a-b_c.d": "/a-b_c.d",
		"a b":      "'a b'",
		"it's":     `'it'"'"'s'`,
		"$(id)":    "'$(id)'",
		"é":        "'é'",
		"-x=1":     "'-x=1'",
	} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// No shell finds anything in an argument.
func TestShells(t *testing.T) {
	args := []string{"", "a b", "'", `"`, `'"'"'`, "$HOME", "$(echo x)", "`echo x`", "a;b|c&d>e<f", "*", "~", "#x", "!x", "\\", "\\'", "-n", "--", "é", "{a,b}", "^", "=ls", "%1"}
	want := "<" + strings.Join(args, "><") + ">"
	for _, shell := range []string{"sh", "bash", "zsh"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Fatalf("%v: setup/debian installs it", err)
		}
		if got := through(t, shell, echo, args...); got != want {
			t.Errorf("%s: %s\nwant %s", shell, got, want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a b", "it's", `\'`, "$(touch /tmp/x)", "\n", "--", "-e", "\xff", "a\tb", "'\\''"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.ContainsRune(s, 0) {
			t.Skip("no shell can have it")
		}
		if got := through(t, "sh", echo, s, "end"); got != "<"+s+"><end>" {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestCheckWord(t *testing.T) {
	for word, ok := range map[string]bool{"": true, "a b": true, "é": true, "a\nb": false, "\x00": false, "\x1b[m": false, "x\u0085": false} {
		if err := checkWord("flag", word); (err == nil) != ok {
			t.Errorf("%q: %v", word, err)
		}
		if strings.ContainsFunc(word, unicode.IsControl) == ok {
			t.Errorf("%q is no example", word)
		}
	}
}
