package shell

import (
	"errors"
	"strings"
)

// parsed is one command: its words and where its output goes.
type parsed struct {
	args []string
	to   string // file named after > or >>
	add  bool   // >>
}

// word is a piece of a line. Operators are ; > and >> outside of quotes.
type word struct {
	text     string
	operator bool
}

// parseLine reads `command args > file; command ...`. Words are quoted with '
// or "; outside of ' a backslash takes the next character as it is; # begins a
// comment.
func parseLine(line string) ([]parsed, error) {
	words, err := lex(line)
	if err != nil {
		return nil, err
	}
	var list []parsed
	var c parsed
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case !w.operator:
			c.args = append(c.args, w.text)
		case w.text == ";":
			if c.to != "" && len(c.args) == 0 {
				return nil, errors.New("nothing to put into " + c.to)
			}
			if len(c.args) > 0 {
				list = append(list, c)
			}
			c = parsed{}
		default:
			i++
			if i == len(words) || words[i].operator || words[i].text == "" {
				return nil, errors.New("a file name must follow " + w.text)
			}
			c.to, c.add = words[i].text, w.text == ">>"
		}
	}
	if c.to != "" && len(c.args) == 0 {
		return nil, errors.New("nothing to put into " + c.to)
	}
	if len(c.args) > 0 {
		list = append(list, c)
	}
	return list, nil
}

type lexer struct {
	words   []word
	text    strings.Builder
	started bool
}

func (l *lexer) end() {
	if l.started {
		l.words = append(l.words, word{text: l.text.String()})
	}
	l.text.Reset()
	l.started = false
}

func (l *lexer) add(c rune) {
	l.text.WriteRune(c)
	l.started = true
}

func (l *lexer) operator(op string) {
	l.end()
	if n := len(l.words); op == ">" && n > 0 && l.words[n-1] == (word{">", true}) {
		l.words[n-1].text = ">>"
		return
	}
	l.words = append(l.words, word{op, true})
}

func lex(line string) ([]word, error) {
	var l lexer
	quote, escaped := rune(0), false
	for _, c := range line {
		switch {
		case escaped:
			l.add(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped = true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				l.add(c)
			}
		case c == '\'' || c == '"':
			quote, l.started = c, true
		case c == '#' && !l.started:
			return l.words, nil
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			l.end()
		case c == ';' || c == '>':
			l.operator(string(c))
		default:
			l.add(c)
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quote is not closed")
	}
	l.end()
	return l.words, nil
}
