package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"minimega/pkg/miniclient"
)

// maxPipeLine is the longest line that -pipe passes on.
const maxPipeLine = 1 << 20

// RunPipe copies lines of stdin to the pipe cfg.Pipe, and what the pipe
// publishes to stdout, until either ends.
func RunPipe(ctx context.Context, cfg Config, std Stdio) int {
	c := dial(ctx, cfg, std)
	if c == nil {
		return exitFailed
	}
	defer c.Close() // ends the pipe as well
	p, err := c.Pipe(ctx, cfg.Pipe)
	if err != nil {
		fmt.Fprintln(std.Err, err)
		return exitFailed
	}
	if err := copyPipe(ctx, p, std); err != nil {
		fmt.Fprintf(std.Err, "pipe %s: %v\n", cfg.Pipe, err)
		return exitFailed
	}
	return exitOK
}

// copyPipe copies both ways. The end of one way ends the other; a reader of
// stdin that waits lasts as long as the program.
func copyPipe(ctx context.Context, p *miniclient.Pipe, std Stdio) error {
	var once sync.Once
	var first error
	ended := make(chan struct{})
	end := func(err error) { once.Do(func() { first = err; close(ended) }) }
	go func() { end(send(p, std.In)) }()
	received := make(chan struct{})
	go func() { defer close(received); end(receive(p, std.Out)) }()
	select {
	case <-ended:
	case <-ctx.Done():
		end(nil)
	}
	err := p.Close()
	<-received
	return errors.Join(first, err)
}

func send(p *miniclient.Pipe, in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxPipeLine)
	for s.Scan() {
		if err := p.Send(s.Text() + "\n"); err != nil {
			return err
		}
	}
	return s.Err()
}

func receive(p *miniclient.Pipe, out io.Writer) error {
	for {
		text, err := p.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
}
