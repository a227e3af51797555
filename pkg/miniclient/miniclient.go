// Package miniclient talks to a running minimega over its command socket:
// commands and their answers, completions, and named pipes. It needs nothing
// else of minimega, so any Go program can use it.
package miniclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"path/filepath"
	"syscall"
	"time"
)

// The pause before a failed dial is repeated doubles between these.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = time.Second
)

// ErrNoAnswer is what Run yields when minimega closes the connection without
// answering, as it does after `quit`.
var ErrNoAnswer = errors.New("minimega closed the connection without an answer")

// ErrBroken is what a connection returns after an earlier call was cancelled
// or failed half-way. Dial again.
var ErrBroken = errors.New("the connection to minimega is broken")

// Conn is a connection to minimega. Commands run one at a time: a call waits
// until the one before has its whole answer.
type Conn struct {
	nc     net.Conn
	in     *lines
	out    []byte
	busy   chan struct{} // holds a token while a call uses the connection
	status func(text string)
	unread bool // the rest of an answer that nobody wanted comes first
	broken bool
}

// SocketPath is the command socket of the minimega with base directory base.
func SocketPath(base string) string { return filepath.Join(base, "minimega") }

// Dial connects to the minimega with base directory base. It tries again
// while the failure is a passing one (a full backlog, no descriptors left)
// until ctx ends.
func Dial(ctx context.Context, base string) (*Conn, error) {
	var d net.Dialer
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		nc, err := d.DialContext(ctx, "unix", SocketPath(base))
		if err == nil {
			return &Conn{nc: nc, in: newLines(nc), busy: make(chan struct{}, 1)}, nil
		}
		if !passing(err) || !wait(ctx, pause) {
			return nil, fmt.Errorf("no minimega at %s: %w", base, err)
		}
	}
}

// OnStatus makes f receive the progress messages of commands, on the
// goroutine that reads their answers. Without it they are dropped. Call it
// before the first command.
func (c *Conn) OnStatus(f func(text string)) { c.status = f }

// Close closes the connection. A command that runs goes on unless it only
// waits for something; its answer is lost.
func (c *Conn) Close() error { return c.nc.Close() }

// Run runs a command and yields its answer, batch by batch as they arrive. An
// empty command yields nothing and does not contact minimega. An error is the
// last thing yielded, and is about the connection: what a command failed with
// is in Response.Resp. When ctx ends the connection is broken.
func (c *Conn) Run(ctx context.Context, command string) iter.Seq2[*Response, error] {
	return func(yield func(*Response, error) bool) {
		if command == "" {
			return
		}
		done, err := c.request(ctx, "Command", command)
		if err != nil {
			yield(nil, err)
			return
		}
		defer done()
		for {
			r, err := c.response(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			c.unread = r.More
			if !yield(r, nil) || !r.More {
				return
			}
		}
	}
}

// Do runs a command and returns its whole answer. The error tells of the
// connection, or of the responses that failed: then it is a Responses.
func (c *Conn) Do(ctx context.Context, command string) ([]*Response, error) {
	var all []*Response
	var failed Responses
	for r, err := range c.Run(ctx, command) {
		if err != nil {
			return all, err
		}
		all = append(all, r)
		failed = append(failed, r.Resp.Failed()...)
	}
	if len(failed) > 0 {
		return all, failed
	}
	return all, nil
}

// RunRaw runs a command and returns the number of bytes of its whole answer,
// which it does not decode: what a benchmark of the other side wants.
func (c *Conn) RunRaw(ctx context.Context, command string) (int, error) {
	done, err := c.request(ctx, "Command", command)
	if err != nil {
		return 0, err
	}
	defer done()
	for n := 0; ; {
		line, err := c.in.peek()
		if err != nil {
			return n, c.fail(ctx, err)
		}
		n += len(line)
		if isLast(line) {
			return n, nil
		}
	}
}

// Suggest returns the lines that the given beginning of a command can be
// completed to.
func (c *Conn) Suggest(ctx context.Context, beginning string) ([]string, error) {
	if beginning == "" {
		// Empty is how the protocol says that there is no request.
		beginning = " "
	}
	done, err := c.request(ctx, "Suggest", beginning)
	if err != nil {
		return nil, err
	}
	defer done()
	r, err := c.response(ctx)
	if err != nil {
		return nil, err
	}
	return r.Suggest, nil
}

// request waits for its turn and sends a request. done must be called after
// the answer was read.
func (c *Conn) request(ctx context.Context, key, value string) (done func(), err error) {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	done = func() {
		if !stop() {
			c.broken = true // the deadline may strike at any time from now on
		}
		<-c.busy
	}
	if err := c.send(ctx, key, value); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

func (c *Conn) send(ctx context.Context, key, value string) error {
	if c.broken {
		return ErrBroken
	}
	for c.unread {
		r, err := c.response(ctx)
		if err != nil {
			return err
		}
		c.unread = r.More
	}
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	c.out = append(c.out[:0], `{"`...)
	c.out = append(append(append(c.out, key...), `":`...), text...)
	c.out = append(c.out, '}', '\n')
	if _, err := c.nc.Write(c.out); err != nil {
		return c.fail(ctx, err)
	}
	return nil
}

// response reads the next response that is no progress message.
func (c *Conn) response(ctx context.Context) (*Response, error) {
	for {
		line, err := c.in.next()
		if err != nil {
			return nil, c.fail(ctx, err)
		}
		r, err := decode(line)
		if err != nil {
			return nil, c.fail(ctx, fmt.Errorf("answer of minimega: %w", err))
		}
		if !r.Status {
			return r, nil
		}
		if c.status != nil {
			c.status(r.Rendered)
		}
	}
}

// fail marks the connection as broken and says why.
func (c *Conn) fail(ctx context.Context, err error) error {
	c.broken = true
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return ErrNoAnswer
	}
	return err
}

// passing reports whether a dial may succeed in a moment.
func passing(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no.Temporary()
}

// wait pauses and reports whether ctx still lasts.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
