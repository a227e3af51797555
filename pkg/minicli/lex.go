package minicli

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine bounds the length of a line in bytes.
const MaxLine = 1 << 20

// lexer splits a line into words. Words without quotes and escapes are parts
// of the line; others are built in buf.
type lexer struct {
	line    string
	toks    []string
	buf     []byte
	built   bool // the current word is in buf, not in the line
	inWord  bool
	comment bool // a comment ended the line
	quote   byte // the open quote, or 0
	start   int  // where the current word starts in the line
}

// lex appends the words of the line to toks.
func lex(line string, toks []string) ([]string, error) {
	l := lexer{line: line, toks: toks}
	if err := l.run(); err != nil {
		return nil, err
	}
	if l.quote != 0 {
		return nil, fmt.Errorf("missing terminal %c", l.quote)
	}
	if !l.comment {
		l.end(len(line))
	}
	return l.toks, nil
}

func (l *lexer) run() error {
	for i := 0; i < len(l.line) && !l.comment; {
		n, err := l.step(i)
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// step takes the character at i and returns how many bytes it took.
func (l *lexer) step(i int) (int, error) {
	switch c := l.line[i]; {
	case c == '\\':
		l.build(i)
		return l.escape(i)
	case l.quote != 0 && l.quote == c:
		l.quote = 0
	case l.quote != 0:
		l.buf = append(l.buf, c)
	case c == '"' || c == '\'':
		l.build(i)
		l.quote = c
	case c == '#':
		l.end(i)
		l.comment = true
	case c >= utf8.RuneSelf:
		return l.wide(i), nil
	case asciiSpace(c):
		l.end(i)
	default:
		l.take(i, 1)
	}
	return 1, nil
}

// wide takes a character outside ASCII, which may be a space.
func (l *lexer) wide(i int) int {
	r, n := utf8.DecodeRuneInString(l.line[i:])
	if unicode.IsSpace(r) {
		l.end(i)
	} else {
		l.take(i, n)
	}
	return n
}

// escape takes the two characters of an escape.
func (l *lexer) escape(i int) (int, error) {
	if i+1 == len(l.line) {
		return 0, errors.New("expected escape character")
	}
	switch c := l.line[i+1]; c {
	case 'r':
		l.buf = append(l.buf, '\r')
	case 'n':
		l.buf = append(l.buf, '\n')
	case 't':
		l.buf = append(l.buf, '\t')
	case '\\', '"', '\'', '#':
		l.buf = append(l.buf, c)
	default:
		r, _ := utf8.DecodeRuneInString(l.line[i+1:])
		return 0, fmt.Errorf("unexpected escaped character: %c", r)
	}
	return 2, nil
}

// take adds n bytes at i to the current word, or starts one.
func (l *lexer) take(i, n int) {
	l.begin(i)
	if l.built {
		l.buf = append(l.buf, l.line[i:i+n]...)
	}
}

func (l *lexer) begin(i int) {
	if !l.inWord {
		l.inWord, l.built, l.start = true, false, i
	}
}

// build moves the current word to buf, since it is no longer a part of the line.
func (l *lexer) build(i int) {
	l.begin(i)
	if !l.built {
		l.built = true
		l.buf = append(l.buf[:0], l.line[l.start:i]...)
	}
}

// word is the current word up to i.
func (l *lexer) word(i int) string {
	switch {
	case !l.inWord:
		return ""
	case l.built:
		return string(l.buf)
	}
	return l.line[l.start:i]
}

func (l *lexer) end(i int) {
	if l.inWord {
		l.toks = append(l.toks, l.word(i))
		l.inWord = false
	}
}

func asciiSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// QuoteWord writes a word such that lexing gives it back: as it is where it
// can be, in double quotes and with escapes otherwise.
func QuoteWord(word string) string {
	if word != "" && !strings.ContainsAny(word, "\"'\\#") && strings.IndexFunc(word, unicode.IsSpace) < 0 {
		return word
	}
	b := make([]byte, 0, len(word)+2)
	b = append(b, '"')
	for i := 0; i < len(word); i++ {
		switch c := word[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// LastWord tells what a completion of line has to replace: the word typed so
// far, without quotes and escapes, and where it starts in the line (its
// quotes included). After a space that is an empty word at the end. It is not
// ok inside a comment and after a bad escape.
func LastWord(line string) (start int, word string, ok bool) {
	l := lexer{line: line}
	if l.run() != nil || l.comment {
		return len(line), "", false
	}
	if !l.inWord {
		return len(line), "", true
	}
	return l.start, l.word(len(line)), true
}
