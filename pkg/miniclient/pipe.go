package miniclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Pipe is a connection that became one end of a named pipe. Recv and Send may
// be called at the same time, each from one goroutine.
type Pipe struct {
	c      *Conn
	close  sync.Once
	closed error
}

// Pipe turns the connection into one end of the named pipe, for good.
func (c *Conn) Pipe(ctx context.Context, name string) (*Pipe, error) {
	done, err := c.request(ctx, "PlumbPipe", name)
	if err != nil {
		return nil, err
	}
	done()
	if c.broken {
		return nil, context.Cause(ctx)
	}
	c.broken = true // as far as commands go
	return &Pipe{c: c}, nil
}

// Recv waits for the next message published on the pipe. io.EOF is its end.
func (p *Pipe) Recv() (string, error) {
	var line []byte
	for len(line) == 0 {
		next, err := p.c.in.next()
		if err != nil {
			return "", err
		}
		line = bytes.TrimSpace(next)
	}
	if line[0] == '{' {
		return "", refusal(line)
	}
	var text string
	if err := json.Unmarshal(line, &text); err != nil {
		return "", fmt.Errorf("message of pipe: %w", err)
	}
	return text, nil
}

// Send writes a message to the pipe. It should end with a newline.
func (p *Pipe) Send(text string) error {
	line, err := json.Marshal(text)
	if err != nil {
		return err
	}
	_, err = p.c.nc.Write(append(line, '\n'))
	return err
}

// Close leaves the pipe.
func (p *Pipe) Close() error {
	p.close.Do(func() { p.closed = p.c.Close() })
	return p.closed
}

// refusal is the error in an answer that came instead of a pipe.
func refusal(line []byte) error {
	r, err := decode(line)
	if err != nil {
		return fmt.Errorf("message of pipe: %w", err)
	}
	if failed := r.Resp.Failed(); len(failed) > 0 {
		return errors.New(failed[0].Error)
	}
	return io.ErrUnexpectedEOF
}
