package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/namespace"
	"minimega/pkg/minicli"
)

// Script are the commands that scripts are made of. files is the files
// directory; help is (*minicli.CLI).Help.
func Script(files string, help func(words []string) string) []Command {
	s := scripts{files}
	return []Command{{
		Patterns: []string{"help [command]..."},
		Short:    "show help",
		Long:     "Lists all commands, or shows how the one that begins with the given words is used.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			return text(help(c.List("command")))
		},
	}, {
		Patterns:      []string{"read <file> [check,]"},
		Short:         "run the commands in a file",
		Long:          "Runs a file line by line, in the active namespace until the file itself changes it. A command that fails does not end it; a line that is no command does. With check it only looks whether every line is a command. The path counts from the daemon's working directory; a file that is not there is looked for in the files directory.",
		Stream:        s.read,
		Interruptible: true,
		Suggest:       map[string]Completer{"file": (&Deps{Files: files}).fileNames},
	}, {
		Patterns: []string{"echo [args]..."},
		Short:    "show the arguments",
		Long:     "Shows its arguments, as a command gets them: without comments, variables expanded.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			return text(strings.Join(c.List("args"), " "))
		},
	}, {
		Patterns: []string{"status updates [frequency]"},
		Short:    "show or set how often long work reports",
		Long:     "Sets the time between two progress messages, such as 500ms or 3s; 0 turns them off.",
		Run:      statusUpdates,
	}}
}

func statusUpdates(_ context.Context, c *Call) (*minicli.Response, error) {
	shared := c.Session.Shared
	if c.Has("frequency") {
		d, err := time.ParseDuration(c.Str("frequency"))
		if err != nil || d < 0 {
			return nil, errs.New(errs.Invalid, "invalid frequency duration provided")
		}
		shared.SetStatusPeriod(d)
		return done(nil)
	}
	if d := shared.StatusPeriod(); d > 0 {
		return text("status update frequency: " + d.String())
	}
	return text("status updates disabled")
}

// scripts reads command files.
type scripts struct{ files string }

// errNested refuses `read` within `read`.
var errNested = errs.New(errs.Invalid, "cannot run nested `read` commands")

func (s scripts) read(ctx context.Context, c *Call) error {
	if c.Reading {
		return errNested
	}
	f, err := s.open(c.Str("file"))
	if err != nil {
		return err
	}
	defer f.Close()
	r := &reading{call: c, name: filepath.Base(f.Name()), namespace: c.Namespace, flags: c.Flags, check: c.Chose("check")}
	in := bufio.NewScanner(f) // its limit of 64 KiB a line is the language's
	for in.Scan() {
		r.line++
		if err := r.run(ctx, in.Text()); err != nil {
			return err
		}
		if ctx.Err() != nil { // the client has gone; the line that ran is complete
			return fmt.Errorf("%s: stopped after line %d: %w", r.name, r.line, context.Cause(ctx))
		}
	}
	if err := in.Err(); err != nil {
		r.line++
		return r.at(err)
	}
	return nil
}

// open finds the file as given, or else in the files directory.
func (s scripts) open(path string) (*os.File, error) {
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.IsLocal(path) {
		if f, err := openRegular(filepath.Join(s.files, path)); err == nil {
			return f, nil
		}
	}
	return f, err
}

// openRegular opens an ordinary file: a pipe or device would hold the command
// for ever.
func openRegular(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errs.New(errs.Invalid, "read %s: not an ordinary file", path)
	}
	return os.Open(path)
}

// reading is a script on its way.
type reading struct {
	call      *Call
	name      string        // of the file
	line      int           // from 1
	namespace string        // that the next line runs in
	flags     minicli.Flags // that the next line runs with
	check     bool          // compile only
}

// at names the line that err is about.
func (r *reading) at(err error) error { return fmt.Errorf("%s:%d %w", r.name, r.line, err) }

// run runs one line. What it returns ends the script; a command that fails has
// told its client by itself.
func (r *reading) run(ctx context.Context, line string) error {
	c, err := r.call.Runner.Compile(line)
	switch {
	case err != nil:
		return r.at(err)
	case c == nil: // blank
		return nil
	case r.check && isRead(c):
		return r.at(errNested)
	case r.check:
		return nil
	}
	n := *r.call
	n.Reading, n.Namespace, n.Flags = true, r.namespace, r.flags
	failed := false
	n.Emit = func(b Batch) error {
		for _, resp := range b.Resps {
			failed = failed || resp.Error != ""
		}
		return r.call.Emit(b)
	}
	before := stateOf(r.call.Session)
	if err := r.call.Runner.Run(ctx, &n, c); err != nil {
		return err
	}
	r.follow(c, before, failed)
	return nil
}

// follow takes over what a line has changed for those after it: output flags
// and namespace.
func (r *reading) follow(c *minicli.Command, before sessionState, failed bool) {
	now := stateOf(r.call.Session)
	for _, s := range flagSpecs() {
		if v := s.get(now.flags); v != s.get(before.flags) {
			s.set(&r.flags, v)
		}
	}
	if now.namespace != before.namespace {
		r.namespace = now.namespace
		return
	}
	// Under `namespace X read …`, or when the switch is to the one that is
	// active already, the session does not show it.
	if name, ok := switchesTo(c, r.namespace); ok && !failed {
		r.namespace = name
	}
}

// sessionState is what a line can change of its session.
type sessionState struct {
	namespace string
	flags     minicli.Flags
}

func stateOf(s *Session) sessionState { return sessionState{s.Namespace(), s.Flags()} }

// switchesTo returns the namespace that a command makes the active one; from
// is the one it runs in.
func switchesTo(c *minicli.Command, from string) (string, bool) {
	if c.Nop() {
		return "", false
	}
	name := c.Str("name")
	switch c.Pattern {
	case "namespace [name]":
		return name, name != ""
	case "clear namespace [name]":
		return namespace.Default, name == "" || name == from || name == "all"
	}
	return "", false
}

// isRead reports whether c, or the command nested in it, reads a file.
func isRead(c *minicli.Command) bool {
	for c.Sub != nil {
		c = c.Sub
	}
	return strings.HasPrefix(c.Pattern, "read ")
}
