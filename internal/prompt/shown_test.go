package prompt

import "testing"

func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"two\nlines\tand é":       "two\nlines\tand é",
		"a DOS line\r\nand \rone": "a DOS line\r\nand \\rone",
		"\x1b]0;title\a":          `\x1b]0;title\a`,
		"\u009b2J\x7f\x00":        `\u009b2J\x7f\x00`,
	} {
		if got := shown(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}
