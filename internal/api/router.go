// Package api holds the doors of a daemon (its own prompt, the unix socket)
// and the router behind them, the only place that decides where a command
// runs. A door gets a line from its client, hands it to the router with the
// client's session, and shows what comes back, batch by batch.
package api

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"

	"minimega/internal/cluster"
	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// ErrClientGone is the cause of a context that ended because its client went
// away. Commands that are not interruptible run on; any other cause ends them.
var ErrClientGone = errors.New("the client has gone away")

// Options are what a router needs to know of its daemon.
type Options struct {
	Host   string          // name of this host, put into every response
	Shared *command.Shared // state of all sessions
	// Preprocess expands one argument before a command runs. Nil leaves
	// arguments as they are.
	Preprocess func(ctx context.Context, arg string) (string, error)
	// Cluster leads to other hosts, and Hosts are those of a namespace. Both are
	// nil for a daemon that is always alone.
	Cluster *cluster.Cluster
	Hosts   func(namespace string) []string
	Log     *slog.Logger
}

// Router turns lines into commands and runs each where it belongs. It is
// command.Runner for the commands that run others.
type Router struct {
	cli  *minicli.CLI
	opts Options
}

// NewRouter makes a router for the language cli, whose handlers carry their
// *command.Command as Meta.
func NewRouter(cli *minicli.CLI, opts Options) *Router {
	r := &Router{cli: cli, opts: opts}
	if opts.Cluster != nil {
		cluster.Serve(opts.Cluster, remoteName, r.serve)
	}
	return r
}

// NewSession makes the session of a new client.
func (r *Router) NewSession() *command.Session { return r.opts.Shared.NewSession() }

// Compile parses a line with the whole language, without aliases. A blank line
// is nil, nil.
func (r *Router) Compile(line string) (*minicli.Command, error) { return r.cli.Compile(line) }

// RunLine runs one line as a client typed it and passes every batch to emit,
// in order, each response with its host. A failure of the command is a batch
// as well. RunLine returns nil, or command.ErrNoReply when the client must
// hear nothing more. When ctx ends with cause ErrClientGone only an
// interruptible command is cancelled; with another cause, any.
func (r *Router) RunLine(ctx context.Context, s *command.Session, line string, emit func(command.Batch) error) error {
	call := &command.Call{Session: s, Namespace: s.Namespace(), Flags: s.Flags(), Runner: r, Emit: emit}
	c, err := r.cli.Compile(minicli.ExpandAlias(line, s.Shared.Aliases()))
	if err != nil {
		r.fail(call, r.opts.Host, err)
		return nil
	}
	if c == nil {
		return nil
	}
	call.Command = c
	call.Emit = r.named(emit)
	err = r.runLine(ctx, call, emit, c.Original)
	if errors.Is(err, command.ErrNoReply) {
		return err
	}
	return nil
}

// Run executes c on behalf of call: a command nested in the line that runs, a
// line of the script that call reads, or one that a command made up.
func (r *Router) Run(ctx context.Context, call *command.Call, c *minicli.Command) error {
	n := call.With(c)
	n.Emit = r.named(call.Emit) // .filter and .columns look at hosts
	line, _ := ctx.Value(lineKey{}).(*minicli.Command)
	if call.Reading && line != nil && !nestedIn(line, c) && isRead(line.Innermost()) {
		return r.runLine(ctx, n, n.Emit, scriptHistory(call.Namespace, c))
	}
	if c.Nop() {
		return nil
	}
	return r.route(ctx, n)
}

// lineKey finds the outermost command of the running line in a context.
type lineKey struct{}

// runLine takes a whole line through preprocessing and history, and runs it.
// record is what the history keeps; raw emits without naming the host.
func (r *Router) runLine(ctx context.Context, call *command.Call, raw func(command.Batch) error, record string) error {
	c := call.Command
	if c.Nop() {
		r.remember(call, record)
		return nil
	}
	if err := r.preprocess(command.Reporting(ctx, call), call.Flags.Preprocess, c); err != nil {
		return raw(failure(call.Flags, "", err))
	}
	if isWrite(c.Innermost()) {
		// A written history holds what came before it, or reading it would
		// write it anew.
		defer r.remember(call, record)
	} else {
		r.remember(call, record)
	}
	ctx, cancel := forCommand(context.WithValue(ctx, lineKey{}, c), c)
	defer cancel()
	return r.route(ctx, call)
}

// preprocess expands the arguments of c and of the commands nested in it, so
// that a line fails before any of it has run.
func (r *Router) preprocess(ctx context.Context, on bool, c *minicli.Command) error {
	if r.opts.Preprocess == nil {
		return nil
	}
	for ; c != nil && !elsewhere(c); c = c.Sub {
		on = flagIn(c, ".preprocess", on)
		if !on {
			continue
		}
		if err := c.Preprocess(func(arg string) (string, error) { return r.opts.Preprocess(ctx, arg) }); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere reports whether what is nested in c runs on other hosts only, which
// expand its arguments.
func elsewhere(c *minicli.Command) bool {
	d, ok := c.Handler.Meta.(*command.Command)
	return ok && d.Elsewhere
}

// route runs a command on the hosts that its scope names.
func (r *Router) route(ctx context.Context, call *command.Call) error {
	d, ok := call.Handler.Meta.(*command.Command)
	if !ok {
		return r.fail(call, r.opts.Host, errs.New(errs.Internal, "%q has no descriptor", call.Pattern))
	}
	if hosts := r.hosts(call, d); len(hosts) > 0 {
		return r.everywhere(ctx, call, d, hosts)
	}
	return r.here(ctx, call, d)
}

// hosts are those that a command runs on; none means on this one, as most do.
func (r *Router) hosts(call *command.Call, d *command.Command) []string {
	if call.Remote || r.opts.Hosts == nil || d.Scope == command.Local && !call.Everywhere {
		return nil
	}
	hosts := r.opts.Hosts(call.Namespace)
	if len(hosts) == 1 && hosts[0] == r.opts.Host {
		return nil
	}
	return hosts
}

// here runs a command on this host and answers with what it returns.
func (r *Router) here(ctx context.Context, call *command.Call, d *command.Command) error {
	resp, err := r.invoke(ctx, call, d)
	switch {
	case errors.Is(err, command.ErrNoReply):
		return err
	case err != nil && resp != nil:
		resp.Error = err.Error()
	case err != nil:
		return r.fail(call, r.opts.Host, err)
	case d.Stream != nil:
		return nil
	case resp == nil:
		resp = &minicli.Response{}
	}
	return call.Emit(command.Batch{Resps: minicli.Responses{resp}, Flags: call.Flags})
}

// invoke calls the command's function. A panic in it ends that command only.
func (r *Router) invoke(ctx context.Context, call *command.Call, d *command.Command) (resp *minicli.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.opts.Log.Error("command panicked", "command", r.conceal(call.Command, call.Original), "panic", p, "stack", string(debug.Stack()))
			resp, err = nil, errs.New(errs.Internal, "%q failed inside minimega (%v); the log has the details", call.Pattern, p)
		}
	}()
	if d.Stream != nil {
		return nil, d.Stream(ctx, call)
	}
	return d.Run(ctx, call)
}

// named passes batches on to emit with this host's name where none is given.
func (r *Router) named(emit func(command.Batch) error) func(command.Batch) error {
	return func(b command.Batch) error {
		for _, resp := range b.Resps {
			if resp != nil && resp.Host == "" {
				resp.Host = r.opts.Host
			}
		}
		return emit(b)
	}
}

func (r *Router) fail(call *command.Call, host string, err error) error {
	return call.Emit(failure(call.Flags, host, err))
}

func failure(f minicli.Flags, host string, err error) command.Batch {
	r := &minicli.Response{Host: host, Error: err.Error()}
	if known := (*errs.Error)(nil); errors.As(err, &known) {
		r.Data = errs.FactsOf(err)
	}
	return command.Batch{Resps: minicli.Responses{r}, Flags: f}
}

// forCommand returns the context c runs in: ctx itself when a client that goes
// away cancels c, else one that only other causes end.
func forCommand(ctx context.Context, c *minicli.Command) (context.Context, context.CancelFunc) {
	if last := c.Innermost(); !last.Nop() {
		if d, ok := last.Handler.Meta.(*command.Command); ok && d.Interruptible {
			return context.WithCancel(ctx)
		}
	}
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); !errors.Is(cause, ErrClientGone) {
			cancel(cause)
		}
	})
	return lasting, func() { stop(); cancel(context.Canceled) }
}
