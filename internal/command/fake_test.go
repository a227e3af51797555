package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"minimega/pkg/minicli"
)

// fakeRunner runs commands of a small language on one host, and remembers the
// lines and the namespaces they ran in.
type fakeRunner struct {
	cli   *minicli.CLI
	lines []string // `<namespace>: <original>`
}

func newFakeRunner(t *testing.T, families ...[]Command) *fakeRunner {
	t.Helper()
	var hs []*minicli.Handler
	for _, c := range slices.Concat(append(families, testCommands())...) {
		if (c.Run == nil) == (c.Stream == nil) || c.Short == "" || c.Long == "" {
			t.Errorf("%v: incomplete descriptor", c.Patterns)
		}
		hs = append(hs, &minicli.Handler{HelpShort: c.Short, HelpLong: c.Long, Patterns: c.Patterns, Meta: &c})
	}
	cli, err := minicli.New(hs...)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeRunner{cli: cli}
}

func (r *fakeRunner) Compile(line string) (*minicli.Command, error) { return r.cli.Compile(line) }

func (r *fakeRunner) Run(ctx context.Context, call *Call, c *minicli.Command) error {
	n := call.With(c)
	r.lines = append(r.lines, call.Namespace+": "+c.Original)
	if c.Nop() {
		return nil
	}
	d := c.Handler.Meta.(*Command)
	var resp *minicli.Response
	var err error
	if d.Stream != nil {
		err = d.Stream(ctx, n)
	} else {
		resp, err = d.Run(ctx, n)
	}
	switch {
	case errors.Is(err, ErrNoReply), errors.Is(err, errClientGone):
		return err
	case err != nil:
		resp = &minicli.Response{Error: err.Error()}
	case d.Stream != nil:
		return nil
	}
	if resp.Host == "" {
		resp.Host = "h1"
	}
	return call.Emit(Batch{Resps: minicli.Responses{resp}, Flags: n.Flags})
}

// Send answers for every host with the line it was sent.
func (r *fakeRunner) Send(_ context.Context, call *Call, hosts []string, c *minicli.Command) (all minicli.Responses) {
	for _, host := range hosts {
		all = append(all, &minicli.Response{Host: host, Response: call.Namespace + ": " + c.Line()})
	}
	return all
}

var errClientGone = errors.New("client gone")

// client is a session that types lines.
type client struct {
	t       *testing.T
	runner  *fakeRunner
	session *Session
	batches []Batch
}

func newClient(t *testing.T, families ...[]Command) *client {
	t.Helper()
	return &client{t: t, runner: newFakeRunner(t, families...), session: NewShared("minimega").NewSession()}
}

// run runs a line and returns what is rendered and what failed, batches and
// errors joined by newlines.
func (c *client) run(line string) (rendered, failed string) {
	c.t.Helper()
	rendered, failed, err := c.runCtx(c.t.Context(), line)
	if err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	return rendered, failed
}

func (c *client) runCtx(ctx context.Context, line string) (rendered, failed string, err error) {
	c.t.Helper()
	c.batches = nil
	cmd, err := c.runner.Compile(line)
	if err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	call := &Call{Session: c.session, Namespace: c.session.Namespace(), Flags: c.session.Flags(), Runner: c.runner}
	var out, bad []string
	call.Emit = func(b Batch) error {
		c.batches = append(c.batches, b)
		if s := b.Resps.Render(b.Flags); s != "" {
			out = append(out, s)
		}
		for _, r := range b.Resps {
			if r.Error != "" {
				bad = append(bad, r.Error)
			}
		}
		return ctx.Err()
	}
	err = c.runner.Run(ctx, call, cmd)
	return strings.Join(out, "\n"), strings.Join(bad, "\n"), err
}

// expect runs a line that must print exactly this.
func (c *client) expect(line, want string) {
	c.t.Helper()
	if got, failed := c.run(line); got != want || failed != "" {
		c.t.Errorf("%s:\ngot  %q, error %q\nwant %q", line, got, failed, want)
	}
}

// refuse runs a line that must fail with exactly this.
func (c *client) refuse(line, want string) {
	c.t.Helper()
	if _, failed := c.run(line); failed != want {
		c.t.Errorf("%s:\ngot error  %q\nwant       %q", line, failed, want)
	}
}

// testCommands are what the families under test are tried on.
func testCommands() []Command {
	rows := func() (*minicli.Response, error) {
		return table([]string{"id", "name", "tags"}, [][]string{{"10", "b", "[x, y]"}, {"9", "a", "{}"}})
	}
	return []Command{{
		Patterns: []string{"rows"}, Short: "a table", Long: "a table",
		Run: func(context.Context, *Call) (*minicli.Response, error) { return rows() },
	}, {
		Patterns: []string{"twice"}, Short: "two batches", Long: "two batches and a progress message",
		Stream: func(_ context.Context, c *Call) error {
			for i := range 2 {
				c.Status("working")
				r, _ := rows()
				r.Host = fmt.Sprint("h", i)
				if err := c.Emit(Batch{Resps: minicli.Responses{r}, Flags: c.Flags}); err != nil {
					return err
				}
			}
			return nil
		},
	}, {
		Patterns: []string{"fail"}, Short: "fails", Long: "fails",
		Run: func(context.Context, *Call) (*minicli.Response, error) { return nil, errors.New("failed") },
	}, {
		Patterns: []string{"bye"}, Short: "ends", Long: "ends",
		Run: func(context.Context, *Call) (*minicli.Response, error) { return nil, ErrNoReply },
	}, {
		Patterns: []string{"namespace [name]"}, Short: "switch", Long: "switch the namespace",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			if !c.Tagged {
				c.Session.SetNamespace(c.Str("name"))
			}
			return done(nil)
		},
	}, {
		Patterns: []string{"clear namespace [name]"}, Short: "leave", Long: "leave the namespace",
		Run: func(context.Context, *Call) (*minicli.Response, error) { return done(nil) },
	}, {
		Patterns: []string{"namespace <name> (command)"}, Short: "in a namespace", Long: "run in a namespace",
		Stream: func(ctx context.Context, c *Call) error {
			n := *c
			n.Namespace, n.Tagged = c.Str("name"), true
			return c.Runner.Run(ctx, &n, c.Sub)
		},
	}}
}
