package miniclient

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// decode parses one message. It is several times faster than encoding/json
// on the tables that minimega sends: a cell is a part of the line, and is
// copied only when it holds an escape. The line must not change afterwards.
func decode(line []byte) (*Response, error) {
	d := decoder{line: line, text: unsafe.String(unsafe.SliceData(line), len(line))}
	r := &Response{}
	err := d.object(func(key string) error {
		switch key {
		case "Resp":
			return list(&d, (*[]*HostResponse)(&r.Resp), (*decoder).hostResponse)
		case "Rendered":
			return d.string(&r.Rendered)
		case "More":
			return d.bool(&r.More)
		case "Status":
			return d.bool(&r.Status)
		case "Suggest":
			return list(&d, &r.Suggest, (*decoder).string)
		}
		return d.skip()
	})
	if err != nil {
		return nil, err
	}
	if d.space(); d.pos != len(d.text) {
		return nil, d.errorf("something follows the message")
	}
	return r, nil
}

// decoder reads JSON (RFC 8259) at pos.
type decoder struct {
	line []byte
	text string // the same bytes
	pos  int
}

func (d *decoder) hostResponse(to **HostResponse) error {
	if d.null() {
		return nil
	}
	h := &HostResponse{}
	*to = h
	return d.object(func(key string) error {
		switch key {
		case "Host":
			return d.string(&h.Host)
		case "Response":
			return d.string(&h.Response)
		case "Header":
			return list(d, &h.Header, (*decoder).string)
		case "Tabular":
			return list(d, &h.Tabular, func(d *decoder, row *[]string) error {
				*row = make([]string, 0, len(h.Header))
				return list(d, row, (*decoder).string)
			})
		case "Error":
			return d.string(&h.Error)
		case "Data":
			return d.raw(&h.Data)
		}
		return d.skip()
	})
}

// object calls field for each key, at its value, which field must consume.
func (d *decoder) object(field func(key string) error) error {
	if err := d.expect('{'); err != nil {
		return err
	}
	if d.take('}') {
		return nil
	}
	for {
		var key string
		if d.peek() != '"' {
			return d.errorf("a key is missing")
		}
		if err := d.string(&key); err != nil {
			return err
		}
		if err := d.expect(':'); err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
		if d.take('}') {
			return nil
		}
		if err := d.expect(','); err != nil {
			return err
		}
	}
}

// list appends the elements of an array to *to; null makes it nil.
func list[T any](d *decoder, to *[]T, element func(*decoder, *T) error) error {
	if d.null() {
		*to = nil
		return nil
	}
	if err := d.expect('['); err != nil {
		return err
	}
	if *to == nil {
		*to = []T{}
	}
	if d.take(']') {
		return nil
	}
	for {
		var v T
		if err := element(d, &v); err != nil {
			return err
		}
		*to = append(*to, v)
		if d.take(']') {
			return nil
		}
		if err := d.expect(','); err != nil {
			return err
		}
	}
}

// string reads a string, or null as "".
func (d *decoder) string(to *string) error {
	if d.null() {
		return nil
	}
	if err := d.expect('"'); err != nil {
		return err
	}
	start := d.pos
	end := strings.IndexByte(d.text[start:], '"')
	if end < 0 {
		return d.errorf("a string does not end")
	}
	if s := d.text[start : start+end]; plain(s) {
		d.pos = start + end + 1
		*to = s
		return nil
	}
	d.pos = start - 1
	token, err := d.token()
	if err != nil {
		return err
	}
	return json.Unmarshal(token, to)
}

// plain reports whether a string stands for itself: no escape, no control
// character, valid UTF-8.
func plain(s string) bool {
	wide := false
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == '\\':
			return false
		case c >= utf8.RuneSelf:
			wide = true
		}
	}
	return !wide || utf8.ValidString(s)
}

// token returns the string literal at pos with its quotes.
func (d *decoder) token() ([]byte, error) {
	for i := d.pos + 1; i < len(d.text); i++ {
		switch d.text[i] {
		case '\\':
			i++
		case '"':
			token := d.line[d.pos : i+1]
			d.pos = i + 1
			return token, nil
		}
	}
	return nil, d.errorf("a string does not end")
}

func (d *decoder) bool(to *bool) error {
	if d.null() {
		return nil
	}
	switch rest := d.text[d.pos:]; {
	case strings.HasPrefix(rest, "true"):
		*to = true
		d.pos += len("true")
	case strings.HasPrefix(rest, "false"):
		*to = false
		d.pos += len("false")
	default:
		return d.errorf("true or false is missing")
	}
	return nil
}

// raw keeps a value as it is; nil for null. Whoever unmarshals it checks it.
func (d *decoder) raw(to *json.RawMessage) error {
	if d.null() {
		return nil
	}
	start := d.pos
	if err := d.skip(); err != nil {
		return err
	}
	*to = d.line[start:d.pos:d.pos]
	return nil
}

// skip steps over a value, of which it only finds the end.
func (d *decoder) skip() error {
	d.space()
	start := d.pos
	for depth := 0; d.pos < len(d.text); d.pos++ {
		switch d.text[d.pos] {
		case '"':
			if _, err := d.token(); err != nil {
				return err
			}
			d.pos--
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		case ',':
		default:
			continue
		}
		switch c := d.text[d.pos]; {
		case depth < 0 || c == ',' && depth == 0: // of what is around the value
			return d.some(start)
		case depth == 0:
			d.pos++
			return nil
		}
	}
	return d.errorf("the message ends too early")
}

// some reports that a value that started at start is missing.
func (d *decoder) some(start int) error {
	if d.pos == start {
		return d.errorf("a value is missing")
	}
	return nil
}

func (d *decoder) space() {
	for d.pos < len(d.text) {
		switch d.text[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is no white space, 0 at the end.
func (d *decoder) peek() byte {
	d.space()
	if d.pos == len(d.text) {
		return 0
	}
	return d.text[d.pos]
}

func (d *decoder) take(c byte) bool {
	if d.peek() != c {
		return false
	}
	d.pos++
	return true
}

func (d *decoder) expect(c byte) error {
	if !d.take(c) {
		return d.errorf(fmt.Sprintf("%q is missing", c))
	}
	return nil
}

func (d *decoder) null() bool {
	if d.peek() == 'n' && strings.HasPrefix(d.text[d.pos:], "null") {
		d.pos += len("null")
		return true
	}
	return false
}

func (d *decoder) errorf(what string) error {
	return fmt.Errorf("at byte %d: %s", d.pos, what)
}
