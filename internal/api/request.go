package api

import (
	"encoding/json"
	"errors"
	"io"
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

// message waits for a JSON string, as pipe mode carries them.
func (r *requests) message() (string, error) {
	r.src.left = maxRequest
	var s string
	err := r.dec.Decode(&s)
	return s, err
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
