package minicli

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// pattern is one parsed pattern of a handler.
type pattern struct {
	text    string
	handler *Handler
	items   []Item
	order   int // of registration
}

// rest reports whether the item takes all words that are left.
func (i *Item) rest() bool { return i.Type&(List|Nested) != 0 }

// parsePattern reads one pattern and checks that what must be last is last.
func parsePattern(text string) ([]Item, error) {
	var items []Item
	keys := map[string]bool{}
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimLeftFunc(rest, unicode.IsSpace) {
		piece, tail, err := cutPiece(rest)
		if err != nil {
			return nil, err
		}
		item, err := parsePiece(piece)
		if err != nil {
			return nil, err
		}
		if n := len(items); n > 0 && (items[n-1].rest() || items[n-1].Type&Optional != 0) {
			return nil, fmt.Errorf("nothing may follow %q", items[n-1].Text)
		}
		if item.Key != "" && keys[item.Key] {
			return nil, fmt.Errorf("two placeholders with the key %q", item.Key)
		}
		keys[item.Key] = true
		items, rest = append(items, item), tail
	}
	if len(items) == 0 {
		return nil, errors.New("empty")
	}
	if items[0].Type&Nested != 0 {
		return nil, errors.New("a nested command needs a word before it")
	}
	return items, nil
}

// closers are the ends of what opens a placeholder.
var closers = map[byte]string{'<': ">", '[': "]", '(': ")"}

// cutPiece splits off the first piece: a word or a placeholder with its dots.
func cutPiece(s string) (piece, tail string, err error) {
	end := strings.IndexFunc(s, unicode.IsSpace)
	if closer := closers[s[0]]; closer != "" {
		n := strings.Index(s, closer)
		if n < 0 {
			return "", "", fmt.Errorf("missing %s", closer)
		}
		if end = strings.IndexFunc(s[n:], unicode.IsSpace); end >= 0 {
			end += n
		}
	}
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:], nil
}

// parsePiece reads one piece.
func parsePiece(piece string) (Item, error) {
	if closers[piece[0]] == "" {
		return parseLiteral(piece)
	}
	if piece[0] == '(' {
		if piece != "(command)" {
			return Item{}, fmt.Errorf("%q is not (command)", piece)
		}
		return Item{Type: Nested, Key: "command", Text: "command"}, nil
	}
	inner, dots := strings.CutSuffix(piece, "...")
	if inner[len(inner)-1:] != closers[piece[0]] || strings.ContainsAny(inner[1:len(inner)-1], "<>[]()") {
		return Item{}, fmt.Errorf("%q is no placeholder", piece)
	}
	text := strings.TrimSpace(inner[1 : len(inner)-1])
	item, err := parsePlaceholder(text, dots)
	if piece[0] == '[' {
		item.Type |= Optional
	}
	return item, err
}

func parseLiteral(piece string) (Item, error) {
	if strings.ContainsAny(piece, "<>[]()\"'\\#") {
		return Item{}, fmt.Errorf("%q is no word", piece)
	}
	return Item{Type: Literal, Text: piece}, nil
}

// parsePlaceholder reads what stands between the brackets: a list when dots
// follow, a choice when it has a comma and no space, else one word.
func parsePlaceholder(text string, dots bool) (Item, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Item{}, errors.New("placeholder without a name")
	}
	item := Item{Type: String, Key: words[0], Text: text}
	if dots {
		item.Type = List
		return item, nil
	}
	if len(words) > 1 || !strings.Contains(text, ",") {
		return item, nil
	}
	item = Item{Type: Choice, Text: text}
	seen := map[string]bool{}
	for _, option := range strings.Split(strings.TrimSuffix(text, ","), ",") {
		if option == "" || seen[option] {
			return Item{}, fmt.Errorf("empty or repeated option in %q", text)
		}
		seen[option] = true
		item.Options = append(item.Options, option)
	}
	return item, nil
}
