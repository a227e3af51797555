package api

import (
	"strings"

	"minimega/internal/command"
	"minimega/pkg/minicli"
)

// remember puts a line that is about to run into the history, unless the
// line's own flags or its command forbid that.
func (r *Router) remember(call *command.Call, line string) {
	if records(call.Flags, call.Command) {
		call.Session.Shared.Remember(r.conceal(call.Command, line))
	}
}

// concealed stands in records for what they must not hold.
const concealed = "****"

// conceal returns a line that ends with c as it was typed, without the
// arguments that no record may hold.
func (r *Router) conceal(c *minicli.Command, line string) string {
	shown, found := c.Typed(), false
	for at := shown; at != nil && !at.Nop(); at = at.Sub {
		d, ok := at.Handler.Meta.(*command.Command)
		if !ok {
			continue
		}
		for _, key := range d.Secret {
			if at.Has(key) {
				at.Strings[key], found = concealed, true
			}
		}
		if words, ok := r.concealAlias(at); ok {
			at.Lists["alias"], found = words, true
		}
	}
	if !found {
		return line
	}
	return strings.TrimSuffix(line, c.Original) + shown.Line()
}

// concealAlias returns the words of a definition of an alias without secrets,
// if what the alias stands for is a command with some.
func (r *Router) concealAlias(c *minicli.Command) (words []string, found bool) {
	if !strings.HasPrefix(c.Pattern, ".alias ") {
		return nil, false
	}
	name, expansion, _ := strings.Cut(strings.Join(c.Lists["alias"], " "), "=")
	stands, err := r.cli.Compile(expansion)
	if err != nil || stands == nil {
		return nil, false
	}
	kept := r.conceal(stands, stands.Original)
	return strings.Split(name+"="+kept, " "), kept != stands.Original
}

// Conceal returns what may be kept on disk of a line that was typed: without
// secrets, and nothing of what is no command, where they cannot be told.
func (r *Router) Conceal(line string) string {
	c, err := r.cli.Compile(minicli.ExpandAlias(line, r.opts.Shared.Aliases()))
	if err != nil || c == nil {
		return ""
	}
	if kept := r.conceal(c, c.Original); kept != c.Original {
		return kept
	}
	return line
}

// records reports whether a line that starts with the given flags is kept:
// not `read`, whose lines are kept instead, nor what would erase or hide it.
func records(f minicli.Flags, c *minicli.Command) bool {
	if c.Nop() {
		return f.Record
	}
	last := c.Innermost()
	if isRead(last) || last.Pattern == "clear history" {
		return false
	}
	return flagAt(c, ".record", f.Record)
}

// flagAt is the value of a flag for the innermost command of c, when it is v
// before. Setting the flag for good counts for the line that sets it, too.
func flagAt(c *minicli.Command, flag string, v bool) bool {
	for ; c != nil; c = c.Sub {
		v = flagIn(c, flag, v)
	}
	return v
}

// flagIn is the value of a flag in c itself, when it is v before.
func flagIn(c *minicli.Command, flag string, v bool) bool {
	if word, _, _ := strings.Cut(c.Pattern, " "); word != flag {
		return v
	}
	return c.Chose("true") || v && !c.Chose("false")
}

// scriptHistory is how the history keeps a line of a script that is read in
// namespace ns, so that the history can itself be read anywhere.
func scriptHistory(ns string, c *minicli.Command) string {
	if c.Nop() || isSwitch(c) {
		return c.Original
	}
	return `namespace "` + ns + `" ` + c.Original
}

// isSwitch reports whether c changes the active namespace.
func isSwitch(c *minicli.Command) bool {
	return c.Pattern == "clear namespace" ||
		c.Sub == nil && strings.HasPrefix(c.Pattern, "namespace ") && len(c.Strings) > 0
}

// isRead reports whether c runs the lines of a file.
func isRead(c *minicli.Command) bool { return c != nil && strings.HasPrefix(c.Pattern, "read ") }

// isWrite reports whether c writes the history to a file.
func isWrite(c *minicli.Command) bool { return strings.HasPrefix(c.Pattern, "write ") }

// nestedIn reports whether c is line or one of the commands in it.
func nestedIn(line, c *minicli.Command) bool {
	for ; line != nil; line = line.Sub {
		if line == c {
			return true
		}
	}
	return false
}
