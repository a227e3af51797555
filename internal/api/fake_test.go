package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// fakes are a small language and what became of its commands.
type fakes struct {
	started chan string // a command that waits has begun
	release chan struct{}
	ended   chan string // how it ended

	mu  sync.Mutex
	log strings.Builder // of the daemon
}

func (f *fakes) Write(p []byte) (int, error) { f.mu.Lock(); defer f.mu.Unlock(); return f.log.Write(p) }

func (f *fakes) logged() string { f.mu.Lock(); defer f.mu.Unlock(); return f.log.String() }

type run = func(context.Context, *command.Call) (*minicli.Response, error)

func (f *fakes) commands() []command.Command {
	one := func(pattern string, r run) command.Command {
		return command.Command{Patterns: []string{pattern}, Run: r}
	}
	stream := func(pattern string, s func(context.Context, *command.Call) error) command.Command {
		return command.Command{Patterns: []string{pattern}, Stream: s}
	}
	nested := func(ctx context.Context, c *command.Call) error { return c.Runner.Run(ctx, c, c.Sub) }
	slow := stream("slow", f.wait)
	patient := stream("patient", f.wait)
	patient.Interruptible = true
	loud := func(ctx context.Context, c *command.Call) error {
		c.Status("waiting")
		return f.wait(ctx, c)
	}
	stay, linger := stream("stay", loud), stream("linger", loud)
	linger.Interruptible = true
	start := one("vm start <vm target>", func(_ context.Context, c *command.Call) (*minicli.Response, error) {
		return nil, errs.New(errs.NotFound, "vm not found: %s", c.Str("vm"))
	})
	start.Scope = command.VMTarget
	start.Suggest = map[string]command.Completer{"vm target": func(c *command.Call, prefix string) []string {
		return []string{c.Namespace + "-vm", "big vm"}
	}}
	version := one("version", func(context.Context, *command.Call) (*minicli.Response, error) {
		return &minicli.Response{Response: "minimega 4.0.0 unknown unknown"}, nil
	})
	version.Scope = command.FanOut
	return []command.Command{
		version, start, slow, patient, stay, linger,
		one("echo [args]...", func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			return &minicli.Response{Response: strings.Join(c.List("args"), " ")}, nil
		}),
		one("fail", func(context.Context, *command.Call) (*minicli.Response, error) {
			return nil, errors.New("no <such> luck")
		}),
		one("half", func(context.Context, *command.Call) (*minicli.Response, error) {
			return &minicli.Response{Response: "out"}, errors.New("err")
		}),
		one("nothing", func(context.Context, *command.Call) (*minicli.Response, error) { return nil, nil }),
		one("table", func(context.Context, *command.Call) (*minicli.Response, error) {
			return &minicli.Response{Header: []string{"id", "name"}, Tabular: [][]string{{"1", "b"}, {"0", "a"}}}, nil
		}),
		one("panic", func(context.Context, *command.Call) (*minicli.Response, error) { panic("ouch") }),
		one(".alias <alias>...", func(context.Context, *command.Call) (*minicli.Response, error) { return nil, nil }),
		{Patterns: []string{"login <user> <password>"}, Secret: []string{"password"}, Run: func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			if c.Str("user") == "panic" {
				panic("no such user")
			}
			return &minicli.Response{Response: c.Str("password")}, nil
		}},
		one("where", func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			return &minicli.Response{Response: fmt.Sprint(c.Namespace, c.Tagged)}, nil
		}),
		one("quit", func(context.Context, *command.Call) (*minicli.Response, error) { return nil, command.ErrNoReply }),
		one("write <file>", func(_ context.Context, c *command.Call) (*minicli.Response, error) { return nil, nil }),
		one("clear history", func(_ context.Context, c *command.Call) (*minicli.Response, error) { return nil, nil }),
		stream("big <size>", func(_ context.Context, c *command.Call) error {
			var n int
			fmt.Sscan(c.Str("size"), &n)
			return answer(c, strings.Repeat("x", n))
		}),
		stream("stream", func(_ context.Context, c *command.Call) error {
			return errors.Join(answer(c, "a"), answer(c, "b"), answer(c, "c"))
		}),
		stream("silent", func(context.Context, *command.Call) error { return nil }),
		stream("late", func(_ context.Context, c *command.Call) error {
			return errors.Join(answer(c, "a"), errors.New("then it broke"))
		}),
		stream("status", func(_ context.Context, c *command.Call) error {
			c.Status("10%")
			err := answer(c, "a")
			c.Status("90%")
			return err
		}),
		stream("read <file> [check,]", f.read),
		{Patterns: []string{inNamespace}, Stream: func(ctx context.Context, c *command.Call) error {
			sub := c.With(c.Sub)
			sub.Namespace, sub.Tagged = c.Str("name"), true
			return c.Runner.Run(ctx, sub, c.Sub)
		}},
		one("namespace [name]", func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			c.Session.SetNamespace(c.Str("name"))
			return nil, nil
		}),
		stream(".record <true,false> (command)", nested),
		one(".record [true,false]", func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			fl := c.Session.Flags()
			fl.Record = c.Chose("true")
			c.Session.SetFlags(fl)
			return nil, nil
		}),
		stream(".preprocess <true,false> (command)", nested),
		stream(".json <true,false> (command)", func(ctx context.Context, c *command.Call) error {
			n := *c
			n.Flags.Mode = minicli.JSON
			return c.Runner.Run(ctx, &n, c.Sub)
		}),
		stream("clear all", func(ctx context.Context, c *command.Call) error {
			sub, err := c.Runner.Compile("clear history")
			return errors.Join(err, c.Runner.Run(ctx, c, sub))
		}),
	}
}

func answer(c *command.Call, text string) error {
	return c.Emit(command.Batch{Resps: minicli.Responses{{Response: text}}, Flags: c.Flags})
}

// wait waits for release or for its context, and tells of both.
func (f *fakes) wait(ctx context.Context, c *command.Call) error {
	f.started <- c.Pattern
	select {
	case <-f.release:
		f.ended <- "released"
		return answer(c, "done")
	case <-ctx.Done():
		f.ended <- context.Cause(ctx).Error()
		return context.Cause(ctx)
	}
}

// read runs the lines in its argument, which are parted by `;`.
func (f *fakes) read(ctx context.Context, c *command.Call) error {
	n := *c
	n.Reading = true
	for line := range strings.SplitSeq(c.Str("file"), ";") {
		sub, err := c.Runner.Compile(line)
		if err != nil {
			return err
		}
		if err := c.Runner.Run(ctx, &n, sub); err != nil {
			return err
		}
		n.Namespace = c.Session.Namespace()
	}
	return nil
}

func newFakes() *fakes {
	return &fakes{started: make(chan string, 8), release: make(chan struct{}), ended: make(chan string, 8)}
}

func (f *fakes) newRouter(t testing.TB) *Router {
	t.Helper()
	r, err := f.router()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// router makes a router for the fakes. Its preprocess doubles a leading +,
// and fails on a leading !.
func (f *fakes) router() (*Router, error) {
	var handlers []*minicli.Handler
	for _, c := range f.commands() {
		handlers = append(handlers, &minicli.Handler{Patterns: c.Patterns, Meta: &c})
	}
	cli, err := minicli.New(handlers...)
	if err != nil {
		return nil, err
	}
	return NewRouter(cli, Options{
		Host:   "box",
		Shared: command.NewShared("minimega"),
		Preprocess: func(_ context.Context, arg string) (string, error) {
			switch {
			case strings.HasPrefix(arg, "!"):
				return "", errors.New("get " + arg[1:] + ": file not found")
			case strings.HasPrefix(arg, "+"):
				return "+" + arg, nil
			}
			return arg, nil
		},
		Log: slog.New(slog.NewTextHandler(f, nil)),
	}), nil
}

// pipe is a pipe that publishes "hello\n" and then what is written to it.
type pipe struct {
	ch   chan string
	once sync.Once
	done chan struct{}
}

func (p *pipe) OpenPipe(_ context.Context, ns, name string) (Pipe, error) {
	if name == "bad" {
		return nil, errors.New("no")
	}
	p.ch <- ns + "/" + name + "\n"
	return p, nil
}

func (p *pipe) Read(ctx context.Context) (string, error) {
	select {
	case m := <-p.ch:
		return m, nil
	case <-p.done:
		return "", io.EOF
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (p *pipe) Write(_ context.Context, m string) error { p.ch <- m; return nil }

func (p *pipe) Close() error { p.once.Do(func() { close(p.done) }); return nil }

// serve starts a server for the fakes and returns the path of its socket.
func serve(t testing.TB, f *fakes, pipes PipeHandler) (*Server, string) {
	t.Helper()
	r := f.newRouter(t)
	s := NewServer(r, pipes, r.opts.Log)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, path
}

// client is a connection that fails the test rather than wait for ever.
type client struct {
	t testing.TB
	*net.UnixConn
	r *bufio.Reader
}

func dial(t testing.TB, path string) *client {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	return &client{t, c, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) line() string {
	c.t.Helper()
	l, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%.200q, %v", l, err)
	}
	return l
}

func (c *client) want(line string) {
	c.t.Helper()
	if got := c.line(); got != line+"\n" {
		c.t.Errorf("got  %.300swant %.300s", got, line)
	}
}

func (c *client) wantEOF() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Errorf("wanted the end, got %q, %v", rest, err)
	}
}

func receive(t *testing.T, ch <-chan string) string {
	t.Helper()
	select {
	case s := <-ch:
		return s
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		return ""
	}
}
