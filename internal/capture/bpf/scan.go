package bpf

import "strings"

// token is a word (keyword, number, address, name) or a symbol.
type token struct {
	text    string
	pos     int
	word    bool
	escaped bool // written \word: a name even if it is a keyword
}

// symbols, longest first.
var symbols = []string{
	"&&", "||", "==", "!=", ">=", "<=", "<<", ">>",
	"(", ")", "[", "]", ":", "/", "!", "=", "<", ">", "&", "|", "^", "+", "-", "*", "%",
}

// scan cuts a filter into tokens; the last one is empty and stands for the end.
func scan(s string) ([]token, error) {
	var toks []token
	brackets := 0 // inside, a colon divides offset and size; outside it belongs to an address
	for i := 0; i < len(s); {
		if strings.IndexByte(" \t\r\n", s[i]) >= 0 {
			i++
			continue
		}
		if n := wordLen(s[i:], brackets == 0); n > 0 {
			toks = append(toks, token{text: s[i : i+n], pos: i, word: true})
			i += n
			continue
		}
		if s[i] == '\\' {
			n := wordLen(s[i+1:], false)
			if n == 0 {
				return nil, &SyntaxError{Pos: i, Token: s[i : i+1], Msg: "expected a name right after it"}
			}
			toks = append(toks, token{text: s[i+1 : i+1+n], pos: i, word: true, escaped: true})
			i += n + 1
			continue
		}
		sym := symbolAt(s[i:])
		if sym == "" {
			return nil, &SyntaxError{Pos: i, Token: firstRune(s[i:]), Msg: "this character has no meaning in a filter"}
		}
		brackets = max(0, brackets+strings.Count(sym, "[")-strings.Count(sym, "]"))
		toks = append(toks, token{text: sym, pos: i})
		i += len(sym)
	}
	return append(toks, token{pos: len(s)}), nil
}

// wordLen is the length of the word at the start of s. A word starts with a
// letter or digit (an IPv6 address also with "::") and does not end in '-'.
func wordLen(s string, colons bool) int {
	if s == "" || !alnum(s[0]) && !(colons && strings.HasPrefix(s, "::")) {
		return 0
	}
	n := 1
	for n < len(s) && (alnum(s[n]) || strings.IndexByte("-_.", s[n]) >= 0 || colons && s[n] == ':') {
		n++
	}
	for s[n-1] == '-' || s[n-1] == '_' {
		n--
	}
	return n
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func symbolAt(s string) string {
	for _, sym := range symbols {
		if strings.HasPrefix(s, sym) {
			return sym
		}
	}
	return ""
}

func firstRune(s string) string {
	for _, r := range s {
		return string(r)
	}
	return ""
}
