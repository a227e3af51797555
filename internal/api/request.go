package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxRequest bounds one request, in bytes.
const maxRequest = 4 << 20

// errTooBig ends a connection whose request grows past maxRequest.
var errTooBig = errors.New("request is larger than 4 MiB")

// request is what a client sends: one JSON object, its keys in any case.
type request struct {
	Command   string
	Suggest   string
	PlumbPipe string
}

// requests reads a stream of JSON values that need nothing between them.
type requests struct {
	dec *json.Decoder
	src *bounded
}

func newRequests(r io.Reader) *requests {
	src := &bounded{r: r}
	return &requests{dec: json.NewDecoder(src), src: src}
}

// next waits for a request. After an error, io.EOF included, there is no next.
func (r *requests) next() (request, error) {
	r.src.left = maxRequest
	var q request
	err := r.dec.Decode(&q)
	return q, err
}

// messages reads what follows the requests as the JSON strings of pipe mode.
// (json.Decoder would wait for the byte after a string.)
func (r *requests) messages() *messages {
	return &messages{r: bufio.NewReader(io.MultiReader(r.dec.Buffered(), r.src.r))}
}

// messages reads a stream of JSON strings that need nothing between them.
type messages struct {
	r   *bufio.Reader
	buf []byte
}

// next waits for a message. After an error, io.EOF included, there is no next.
func (m *messages) next() (string, error) {
	m.buf = m.buf[:0]
	for escaped := false; ; {
		c, err := m.r.ReadByte()
		if err != nil {
			return "", err
		}
		if len(m.buf) == 0 {
			if strings.IndexByte(" \t\r\n", c) >= 0 {
				continue
			}
			if c != '"' {
				return "", fmt.Errorf("a message of a pipe starts with %q, not with a quote", c)
			}
		}
		if m.buf = append(m.buf, c); len(m.buf) > maxRequest {
			return "", errTooBig
		}
		if c == '"' && !escaped && len(m.buf) > 1 {
			var text string
			err := json.Unmarshal(m.buf, &text)
			return text, err
		}
		escaped = c == '\\' && !escaped
	}
}

// bounded fails once more than left bytes were read: what one value may take
// beyond what the decoder holds already.
type bounded struct {
	r    io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooBig
	}
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}
