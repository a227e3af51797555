package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"minimega/pkg/minicli"
)

// Responses are what a command answered on a host, in a form that is fast to
// read: a table of thousands of rows takes one copy and two slices of memory.
//
// The form: lengths and counts are unsigned varints; a text is its length and
// its bytes; a list that may be nil is 0 for nil, else its length plus one.
type Responses minicli.Responses

// AppendBinary writes the responses.
func (rs Responses) AppendBinary(b []byte) ([]byte, error) {
	b = binary.AppendUvarint(slices.Grow(b, 3*minicli.Responses(rs).Size()), uint64(len(rs)))
	for _, r := range rs {
		b = appendText(appendText(appendText(b, r.Host), r.Response), r.Error)
		data, err := dataJSON(r)
		if err != nil {
			return nil, err
		}
		b = append(binary.AppendUvarint(b, uint64(len(data))), data...)
		b = appendList(b, r.Header)
		if r.Tabular == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(r.Tabular))+1)
		for _, row := range r.Tabular {
			b = appendList(b, row)
		}
	}
	return b, nil
}

// dataJSON is the JSON of the data of a response, nil for none.
func dataJSON(r *minicli.Response) ([]byte, error) {
	switch d := r.Data.(type) {
	case nil:
		return nil, nil
	case interface{ AppendJSON([]byte) []byte }:
		// That of a table is a few times as long as the table.
		return d.AppendJSON(make([]byte, 0, 2*minicli.Responses{r}.Size())), nil
	}
	return json.Marshal(r.Data)
}

// rawJSON is data of another host: valid JSON in one line, as replies to
// clients are.
type rawJSON string

// whole reports whether data can be passed on to clients as it is.
func (r rawJSON) whole() bool {
	return !strings.ContainsRune(string(r), '\n') && !strings.ContainsRune(string(r), '\r') && utf8.ValidString(string(r)) &&
		json.Valid(unsafe.Slice(unsafe.StringData(string(r)), len(r))) // only read
}

// AppendJSON appends it as it is, where encoding/json would read it once more.
func (r rawJSON) AppendJSON(b []byte) []byte { return append(b, r...) }

// MarshalJSON serves readers that do not know AppendJSON.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendList(b []byte, list []string) []byte {
	if list == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(list))+1)
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

var errMalformed = errors.New("malformed responses")

// UnmarshalBinary reads what AppendBinary wrote, and keeps payload, which must
// not be changed afterwards. Data stays JSON, and must be valid.
func (rs *Responses) UnmarshalBinary(payload []byte) error {
	// The texts of large tables are those of the message, not copies.
	r := reader{rest: unsafe.String(unsafe.SliceData(payload), len(payload))}
	n := r.count(6) // a response is at least six bytes
	list := make(Responses, 0, n)
	for range n {
		list = append(list, r.response())
	}
	if r.bad || r.rest != "" {
		return errMalformed
	}
	*rs = list
	return nil
}

// reader takes values from the front of a text. After a mistake everything is
// empty and bad is set.
type reader struct {
	rest  string
	bad   bool
	cells []string // the unused rest of a slab
}

func (r *reader) number() uint64 {
	var n uint64
	for i := 0; i < len(r.rest) && i < binary.MaxVarintLen64; i++ {
		c := r.rest[i]
		if n |= uint64(c&0x7f) << (7 * i); c < 0x80 {
			r.rest = r.rest[i+1:]
			return n
		}
	}
	r.fail()
	return 0
}

func (r *reader) fail() { r.bad, r.rest = true, "" }

// count reads a number of things of at least size bytes each.
func (r *reader) count(size int) int {
	n := r.number()
	if n > uint64(len(r.rest)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.count(1)
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

// optional reads the length of a list that may be nil.
func (r *reader) optional() (n int, ok bool) {
	m := r.number()
	if m == 0 {
		return 0, false
	}
	if m-1 > uint64(len(r.rest)) {
		r.fail()
		return 0, false
	}
	return int(m - 1), true
}

func (r *reader) list() []string {
	n, ok := r.optional()
	if !ok {
		return nil
	}
	if n > len(r.cells) {
		r.cells = make([]string, max(n, min(4096, len(r.rest))))
	}
	list := r.cells[:n:n]
	r.cells = r.cells[n:]
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *reader) response() *minicli.Response {
	resp := &minicli.Response{Host: r.text(), Response: r.text(), Error: r.text()}
	if data := rawJSON(r.text()); data != "" {
		r.bad = r.bad || !data.whole()
		resp.Data = data
	}
	resp.Header = r.list()
	n, ok := r.optional()
	if !ok {
		return resp
	}
	resp.Tabular = make([][]string, n)
	for i := range resp.Tabular {
		resp.Tabular[i] = r.list()
	}
	return resp
}
