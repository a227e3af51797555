package minicli

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// AppendResponses appends the JSON of a batch, byte for byte what
// encoding/json makes of it.
func AppendResponses(dst []byte, rs Responses) []byte {
	if rs == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, r := range rs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendResponse(dst, r)
	}
	return append(dst, ']')
}

// Size is how long the JSON of a batch is without its data, more or less.
func (rs Responses) Size() int {
	n := 2
	for _, r := range rs {
		if r == nil {
			continue
		}
		n += 256 + len(r.Response)
		if len(r.Tabular) == 0 {
			continue
		}
		row := 8 // the first one stands for all
		for _, cell := range r.Tabular[0] {
			row += len(cell) + 4
		}
		n += row * len(r.Tabular)
	}
	return n
}

// AppendResponse appends the JSON of a response, byte for byte what
// encoding/json makes of it. Data may write itself with a method
// AppendJSON([]byte) []byte; Data that has no JSON becomes null.
func AppendResponse(dst []byte, r *Response) []byte {
	if r == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, `{"Host":`...)
	dst = AppendString(dst, r.Host)
	dst = append(dst, `,"Response":`...)
	dst = AppendString(dst, r.Response)
	dst = append(dst, `,"Header":`...)
	dst = appendStrings(dst, r.Header)
	dst = append(dst, `,"Tabular":`...)
	dst = appendRows(dst, r.Tabular)
	dst = append(dst, `,"Error":`...)
	dst = AppendString(dst, r.Error)
	dst = append(dst, `,"Data":`...)
	dst = appendData(dst, r.Data)
	return append(dst, '}')
}

func appendData(dst []byte, data any) []byte {
	switch d := data.(type) {
	case nil:
		return append(dst, "null"...)
	case interface{ AppendJSON([]byte) []byte }:
		return d.AppendJSON(dst)
	case int:
		return strconv.AppendInt(dst, int64(d), 10)
	}
	text, err := json.Marshal(data)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

func appendRows(dst []byte, rows [][]string) []byte {
	if rows == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, row := range rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendStrings(dst, row)
	}
	return append(dst, ']')
}

func appendStrings(dst []byte, list []string) []byte {
	if list == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, s)
	}
	return append(dst, ']')
}

// plain marks the bytes that stand for themselves in a JSON string that is
// safe inside HTML.
var plain = func() (table [utf8.RuneSelf]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return table
}()

// AppendString appends s as a JSON string, escaped as encoding/json does for
// HTML: bytes that are no UTF-8 become the replacement character.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if !plain[c] {
				dst = append(dst, s[start:i]...)
				dst = appendEscaped(dst, c)
				start = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if escape := wideEscape(r, n); escape != "" {
			dst = append(dst, s[start:i]...)
			dst = append(dst, escape...)
			start = i + n
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// wideEscape is how a character outside ASCII is written, "" for as it is.
func wideEscape(r rune, n int) string {
	switch {
	case r == utf8.RuneError && n == 1:
		return `\ufffd`
	case r == '\u2028':
		return `\u2028`
	case r == '\u2029':
		return `\u2029`
	}
	return ""
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}
