package api

import (
	"io"
	"slices"
	"sync"

	"minimega/internal/command"
	"minimega/pkg/minicli"
)

// keepBuffer is the largest buffer that a connection keeps between replies.
const keepBuffer = 256 << 10

// replies writes the answers of one connection: each is one line of JSON and
// one write. Of the batches of a command it holds the last one back, since
// only at the end it is known that no more follow.
type replies struct {
	mu   sync.Mutex // guards the fields below and the order of writes
	w    io.Writer
	buf  []byte // a reply up to the value of More, when held
	held bool
	size int   // of the last large reply: the next one is likely the same
	err  error // of the first failed write; nothing is written after it
}

// batch writes the batch that is held back, and holds b back.
func (r *replies) batch(b command.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Status != "" {
		return r.statusLocked(b.Status)
	}
	if r.held {
		r.sendLocked("true")
	}
	if r.err != nil {
		return r.err
	}
	r.holdLocked(b)
	return nil
}

// end writes what is held back as the last reply, or the reply of a command
// that had none.
func (r *replies) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held {
		r.holdLocked(command.Batch{})
	}
	r.sendLocked("false")
	return r.err
}

// suggest writes the answer to a request for completions.
func (r *replies) suggest(words []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(r.buf[:0], `{"Resp":null,"Rendered":"","More":false,"Status":false`...)
	for i, w := range words {
		if i == 0 {
			r.buf = append(r.buf, `,"Suggest":[`...)
		} else {
			r.buf = append(r.buf, ',')
		}
		r.buf = minicli.AppendString(r.buf, w)
	}
	if len(words) > 0 {
		r.buf = append(r.buf, ']')
	}
	r.buf = append(r.buf, '}', '\n')
	r.writeLocked(r.buf)
	return r.err
}

// message writes one message of a pipe: a JSON string, a line.
func (r *replies) message(text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf = append(minicli.AppendString(r.buf[:0], text), '\n')
	r.writeLocked(r.buf)
	return r.err
}

func (r *replies) holdLocked(b command.Batch) {
	render := func() string { return b.Resps.Render(b.Flags) }
	if large(b.Resps) {
		render = aside(render)
		r.buf = slices.Grow(r.buf, max(r.size, 2*b.Resps.Size()))
	}
	r.buf = append(r.buf[:0], `{"Resp":`...)
	if b.Resps == nil {
		r.buf = append(r.buf, "null"...)
	} else {
		r.buf = minicli.AppendResponses(r.buf, b.Resps)
	}
	r.buf = append(r.buf, `,"Rendered":`...)
	r.buf = minicli.AppendString(r.buf, render())
	r.buf = append(r.buf, `,"More":`...)
	r.held = true
}

// sendLocked completes the reply that is held back and writes it.
func (r *replies) sendLocked(more string) {
	r.buf = append(append(r.buf, more...), `,"Status":false}`+"\n"...)
	r.held = false
	r.writeLocked(r.buf)
	if cap(r.buf) > keepBuffer {
		r.size = len(r.buf) + len(r.buf)/16
		r.buf = nil
	}
}

// aside starts compute in a goroutine and returns what waits for its result. A
// panic there becomes one of the waiter, whose connection alone ends by it.
func aside(compute func() string) func() string {
	type result struct {
		text  string
		panic any
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			r.panic = recover()
			done <- r
		}()
		r.text = compute()
	}()
	return func() string {
		r := <-done
		if r.panic != nil {
			panic(r.panic)
		}
		return r.text
	}
}

// large reports whether a batch is worth being rendered beside its encoding.
func large(rs minicli.Responses) bool {
	rows := 0
	for _, r := range rs {
		rows += len(r.Tabular)
	}
	return rows > 500
}

func (r *replies) statusLocked(text string) error {
	line := minicli.AppendString([]byte(`{"Resp":null,"Rendered":`), text)
	r.writeLocked(append(line, `,"More":false,"Status":true}`+"\n"...))
	return r.err
}

func (r *replies) writeLocked(p []byte) {
	if r.err == nil {
		_, r.err = r.w.Write(p)
	}
}
