package api

import (
	"context"
	"errors"
	"io"
)

// PipeHandler opens the named pipes that clients attach to.
type PipeHandler interface {
	// OpenPipe opens a pipe of a namespace for one reader and writer.
	OpenPipe(ctx context.Context, namespace, name string) (Pipe, error)
}

// Pipe is one client's end of a named pipe. Read and Write may run at the same
// time, and Close ends both.
type Pipe interface {
	// Read waits for the next message published; io.EOF when there are no more.
	Read(ctx context.Context) (string, error)
	// Write publishes a message, which brings its own newline.
	Write(ctx context.Context, message string) error
	Close() error
}

// plumb gives the connection to a pipe until either side ends.
func (c *conn) plumb(ctx context.Context, h PipeHandler, name string) error {
	p, err := h.OpenPipe(ctx, c.session.Namespace(), name)
	if err != nil {
		c.refuse(err)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	published := make(chan struct{})
	go func() {
		defer close(published)
		c.publish(ctx, p)
		cancel()
	}()
	err = c.deliver(ctx, p)
	cancel()
	c.endReads()
	<-published
	return errors.Join(ignoreEnd(err), p.Close())
}

// publish writes what the client sends to the pipe, until it sends no more.
func (c *conn) publish(ctx context.Context, p Pipe) {
	messages := c.requests.messages()
	for ctx.Err() == nil {
		text, err := messages.next()
		if err != nil {
			return
		}
		if text == "" {
			continue
		}
		if err := p.Write(ctx, text); err != nil {
			c.server.log.Debug("pipe refused a message", "err", err)
			return
		}
	}
}

// deliver sends what the pipe publishes to the client.
func (c *conn) deliver(ctx context.Context, p Pipe) error {
	for {
		text, err := p.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.replies.message(text); err != nil {
			return nil // the client has gone, which is how pipes end
		}
	}
}

// ignoreEnd drops the errors by which a pipe ends as it should.
func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
