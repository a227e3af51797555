package shell

import (
	"bytes"
	"io"
	"sync"
)

// input reads the device ahead of the line editor, so that ctrl-C is noticed
// while a command runs and what is typed meanwhile is kept.
type input struct {
	mu        sync.Mutex
	ready     *sync.Cond
	buf       []byte
	err       error
	interrupt func() // while a command runs
}

const (
	maxTypeAhead = 64 << 10
	ctrlC        = 3
)

func newInput(r io.Reader) *input {
	in := &input{}
	in.ready = sync.NewCond(&in.mu)
	go in.pump(r) // ends with the device
	return in
}

func (in *input) pump(r io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		in.mu.Lock()
		for _, b := range buf[:n] {
			in.addLocked(b)
		}
		in.err = err
		in.ready.Broadcast()
		if err != nil && in.interrupt != nil {
			in.interrupt()
		}
		in.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (in *input) addLocked(b byte) {
	switch {
	case b == ctrlC && in.interrupt != nil:
		in.buf = in.buf[:0]
		in.interrupt()
	case len(in.buf) < maxTypeAhead: // beyond, drop it as a terminal does
		in.buf = append(in.buf, b)
	}
}

// onInterrupt sets what ctrl-C does, also one that was typed after the line
// that is to be run.
func (in *input) onInterrupt(fn func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.interrupt = fn
	if i := bytes.LastIndexByte(in.buf, ctrlC); i >= 0 && fn != nil {
		in.buf = in.buf[i+1:]
		fn()
	}
}

// Read gives what was typed, and waits if that is nothing. While no command
// runs, ctrl-C gives up the line.
func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.buf) == 0 && in.err == nil {
		in.ready.Wait()
	}
	if len(in.buf) == 0 {
		return 0, in.err
	}
	if in.buf[0] == ctrlC {
		in.buf = in.buf[1:]
		return copy(p, "\x15\r"), nil // kill line, enter
	}
	typed := in.buf
	if i := bytes.IndexByte(typed, ctrlC); i >= 0 {
		typed = typed[:i]
	}
	n := copy(p, typed)
	in.buf = in.buf[n:]
	return n, nil
}
