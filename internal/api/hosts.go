package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"minimega/internal/cluster"
	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// everywhere runs a command on all hosts, this one perhaps among them, at
// once, and answers with one batch of what they say in the order of hosts.
func (r *Router) everywhere(ctx context.Context, call *command.Call, d *command.Command, hosts []string) error {
	request, err := remoteOf(call)
	if err != nil {
		return r.fail(call, r.opts.Host, err)
	}
	answers := make([]minicli.Responses, len(hosts))
	events := make(chan event)
	for i, host := range hosts {
		go func() {
			say := func(status string) { events <- event{status: host + ": " + status} }
			if host == r.opts.Host {
				answers[i] = r.alone(ctx, call, say)
			} else {
				answers[i] = r.ask(ctx, host, request, say)
			}
			events <- event{done: true}
		}()
	}
	for running := len(hosts); running > 0; {
		e := <-events
		if e.done {
			running--
			continue
		}
		call.Status(e.status)
	}
	all := slices.Concat(answers...)
	if d != nil && d.Scope == command.VMTarget {
		all = r.found(all)
	}
	return call.Emit(command.Batch{Resps: all, Flags: call.Flags})
}

// event is what the goroutines of a command on many hosts tell its own.
type event struct {
	status string
	done   bool
}

// alone runs a command on this host only and returns all that it answers.
func (r *Router) alone(ctx context.Context, call *command.Call, say func(string)) minicli.Responses {
	here := *call
	here.Remote, here.Everywhere = true, false
	all, emit := collect(say)
	here.Emit = r.named(emit)
	if err := r.route(ctx, &here); err != nil {
		return failure(call.Flags, r.opts.Host, err).Resps
	}
	return *all
}

// collect gathers the responses that pass through emit.
func collect(say func(string)) (all *minicli.Responses, emit func(command.Batch) error) {
	all = new(minicli.Responses)
	return all, func(b command.Batch) error {
		if b.Status != "" {
			say(b.Status)
		}
		*all = append(*all, b.Resps...)
		return nil
	}
}

// ask runs a command on another host. One that cannot be reached, or is lost
// on the way, answers with an error in its name.
func (r *Router) ask(ctx context.Context, host string, q remote, say func(string)) minicli.Responses {
	if t := r.opts.Cluster.Timeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, errTimedOut)
		defer cancel()
	}
	resps, err := cluster.Ask[cluster.Responses](ctx, r.opts.Cluster, host, remoteName, q, say)
	if err != nil {
		return failure(q.Flags, host, err).Resps
	}
	for _, resp := range resps {
		resp.Host = host // whatever it calls itself
	}
	return minicli.Responses(resps)
}

// errTimedOut is what stands for the answer of a host that took too long.
var errTimedOut = errs.New(errs.Unreachable, "timed out")

const notFound = "vm not found: "

// found leaves out the hosts that do not have the VM a command was about, if
// another has it; else one error, of this host, stands for all. A host that
// cannot be reached may have it, so its error stands beside that one.
func (r *Router) found(all minicli.Responses) minicli.Responses {
	var kept minicli.Responses
	var missing *minicli.Response
	done := false
	for _, resp := range all {
		if resp.Error != "" && strings.HasPrefix(resp.Error, notFound) && !strings.Contains(resp.Error, "\n") {
			missing = resp
			continue
		}
		done = done || resp.Error == "" || !unreachable(resp)
		kept = append(kept, resp)
	}
	if missing == nil || done {
		return kept
	}
	one := *missing
	one.Host = r.opts.Host
	return append(minicli.Responses{&one}, kept...)
}

// unreachable reports whether a response stands for a host that gave none.
func unreachable(resp *minicli.Response) bool {
	f, ok := resp.Data.(errs.Facts)
	return ok && f.Kind == errs.Unreachable && f.Host == resp.Host
}

// remoteName is the kind of a request to run a command.
const remoteName = "command"

// remote asks a host to run one command, there only.
type remote struct {
	Line      string
	Namespace string // "" for the one that is active there
	Flags     minicli.Flags
	Expanded  bool // `$NAME` has been expanded
	Record    bool // the command is kept in the history there
	First     bool // only the first response is wanted
}

// remoteOf makes a request of a command that runs here as well: `$NAME` means
// what it means here, `file:` what the other host has.
func remoteOf(call *command.Call) (remote, error) {
	c := call.Command.Typed()
	if call.Flags.Preprocess {
		for n := c; n != nil && !n.Nop(); n = n.Sub {
			if err := n.Preprocess(func(arg string) (string, error) { return command.ExpandEnv(arg), nil }); err != nil {
				return remote{}, err
			}
		}
	}
	return remote{Line: c.Line(), Namespace: call.Namespace, Flags: call.Flags, Expanded: true}, nil
}

// Send runs a line on other hosts, as `mesh send` does, and returns one
// response for each, in the order of hosts.
func (r *Router) Send(ctx context.Context, call *command.Call, hosts []string, c *minicli.Command) minicli.Responses {
	q := remote{Line: c.Typed().Line(), Flags: call.Flags, Record: call.Flags.Record, First: true}
	if call.Tagged {
		q.Namespace = call.Namespace
	}
	answers := make([]minicli.Responses, len(hosts))
	done := make(chan struct{})
	for i, host := range hosts {
		go func() {
			answers[i] = r.ask(ctx, host, q, func(string) {})
			done <- struct{}{}
		}()
	}
	for range hosts {
		<-done
	}
	return slices.Concat(answers...)
}

// serve runs a command that another host sent, here only.
func (r *Router) serve(ctx context.Context, from string, q remote, say func(string)) (cluster.Responses, error) {
	s := r.NewSession()
	c, err := r.cli.Compile(q.Line)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	if c == nil || c.Nop() {
		return nil, nil
	}
	all, emit := collect(say)
	call := &command.Call{Command: c, Session: s, Namespace: s.Namespace(), Flags: q.Flags, Runner: r, Remote: true, Emit: r.named(emit)}
	if q.Namespace != "" {
		call.Namespace, call.Tagged = q.Namespace, true
	}
	call.Flags.Record = q.Record
	ctx, cancel := asClient(ctx)
	defer cancel()
	if q.Expanded {
		ctx = command.EnvExpanded(ctx)
	}
	r.opts.Log.Debug("command of another host", "host", from, "command", r.conceal(c, c.Original))
	if err := r.runLine(ctx, call, emit, c.Original); err != nil && !errors.Is(err, command.ErrNoReply) {
		return nil, err
	}
	if q.First && len(*all) > 1 {
		*all = (*all)[:1]
	}
	return cluster.Responses(*all), nil
}

// asClient makes the loss of the host that asked look like that of a client.
func asClient(ctx context.Context) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if cause := context.Cause(ctx); errors.Is(cause, cluster.ErrCallerGone) {
			cancel(ErrClientGone)
		} else {
			cancel(cause)
		}
	})
	return inner, func() { stop(); cancel(context.Canceled) }
}
