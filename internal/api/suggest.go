package api

import (
	"context"

	"minimega/internal/command"
	"minimega/pkg/minicli"
)

// Suggest returns the lines that the beginning of a line can be completed to:
// what stays of it, and the last word completed.
func (r *Router) Suggest(ctx context.Context, s *command.Session, line string) []string {
	start, _, ok := minicli.LastWord(line)
	if !ok {
		return nil
	}
	ask := asker{router: r, ctx: ctx, session: s}
	words := r.cli.Suggest(line, ask.values)
	lines := make([]string, len(words))
	for i, w := range words {
		lines[i] = line[:start] + w
	}
	return lines
}

// asker asks the completers of commands on behalf of a session.
type asker struct {
	router  *Router
	ctx     context.Context
	session *command.Session
}

// values is a minicli.Values: completers are found by the whole text of a
// placeholder, or by its key.
func (a asker) values(h *minicli.Handler, key, text, prefix string, sofar *minicli.Command) []string {
	d, ok := h.Meta.(*command.Command)
	if !ok {
		return nil
	}
	complete := d.Suggest[text]
	if complete == nil {
		complete = d.Suggest[key]
	}
	if complete == nil || a.ctx.Err() != nil {
		return nil
	}
	return complete(a.call(sofar), prefix)
}

// call is the command as far as it is typed.
func (a asker) call(sofar *minicli.Command) *command.Call {
	call := &command.Call{
		Command: sofar.Innermost(), Session: a.session, Namespace: a.session.Namespace(), Flags: a.session.Flags(),
		Runner: a.router, Emit: func(command.Batch) error { return nil },
	}
	for c := sofar; c != nil; c = c.Sub {
		if c.Pattern == inNamespace && c.Has("name") {
			call.Namespace, call.Tagged = c.Str("name"), true
		}
	}
	return call
}

// inNamespace is the pattern of the command that runs another in a namespace.
const inNamespace = "namespace <name> (command)"
