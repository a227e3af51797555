package minicli

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestLex(t *testing.T) {
	for _, tt := range []struct {
		line string
		want []string
	}{
		{`a b`, []string{"a", "b"}},
		{"a\u00a0b\u2003c\v\fd", []string{"a", "b", "c", "d"}},
		{`a"b c"d`, []string{"ab cd"}},
		{`"" ''`, []string{"", ""}},
		{`'a "b"' "c 'd'"`, []string{`a "b"`, `c 'd'`}},
		{`foo#bar baz`, []string{"foo"}},
		{`foo "#" \# 'a#b' #c`, []string{"foo", "#", "#", "a#b"}},
		{`\r\n\t\\\"\'\#`, []string{"\r\n\t\\\"'#"}},
		{`'\'' "\""`, []string{"'", `"`}},
		{`a\nb`, []string{"a\nb"}},
		{`# \x "`, nil},
		{`a # \x "`, []string{"a"}},
		{"a\xff\xfeb", []string{"a\xff\xfeb"}},
		{`é"à b"`, []string{"éà b"}},
		{`  `, nil},
	} {
		got, err := lex(tt.line, nil)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("lex(%q) = %q, %v, want %q", tt.line, got, err, tt.want)
		}
	}
}

func TestQuoteWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a"'\\# \n\r\t\v]{0,6}`))
		words := rapid.SliceOf(piece).Draw(t, "words")
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, QuoteWord(w))
		}
		got, err := lex(strings.Join(quoted, " "), nil)
		if err != nil || !slices.Equal(got, words) {
			t.Fatalf("%q -> %q -> %q, %v", words, quoted, got, err)
		}
	})
	if q := QuoteWord("plain-word,1"); q != "plain-word,1" {
		t.Errorf("%s is quoted", q)
	}
}

func TestLastWord(t *testing.T) {
	for _, tt := range []struct {
		line, rest, word string
		ok               bool
	}{
		{"", "", "", true},
		{"vm st", "st", "st", true},
		{"vm ", "", "", true},
		{`shell "a b`, `"a b`, "a b", true},
		{`shell x"a b" `, ``, "", true},
		{`shell x"a b"`, `x"a b"`, "xa b", true},
		{`shell a\"b`, `a\"b`, `a"b`, true},
		{`shell a # b`, ``, "", false},
		{`shell a\`, ``, "", false},
		{`shell a\x b`, ``, "", false},
	} {
		start, word, ok := LastWord(tt.line)
		if tt.line[start:] != tt.rest || word != tt.word || ok != tt.ok {
			t.Errorf("LastWord(%q) = %q %q %v", tt.line, tt.line[start:], word, ok)
		}
	}
}

func TestExpandAlias(t *testing.T) {
	aliases := map[string]string{"vi": "vm info", "vm": "vi", "x": "echo #"}
	for line, want := range map[string]string{
		"vi":           "vm info",
		" vi  summary": "vm info  summary",
		"vm info":      "vi info",
		"vii":          "vii",
		"echo vi":      "echo vi",
		"vi\tx":        "vm info\tx",
		"":             "",
		`"vi"`:         `"vi"`,
	} {
		if got := ExpandAlias(line, aliases); got != want {
			t.Errorf("ExpandAlias(%q) = %q, want %q", line, got, want)
		}
	}
}
