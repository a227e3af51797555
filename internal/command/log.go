package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/minilog"
	"minimega/pkg/minicli"
)

// logs runs the commands about the daemon's own log.
type logs struct{ log *minilog.Log }

// Log are the commands about the daemon's own log.
func Log(l *minilog.Log) []Command {
	g := logs{l}
	return append([]Command{{
		Patterns: []string{"log level [debug,info,warn,error,fatal]"},
		Short:    "show or set the log level",
		Long:     "Messages at and above the level are logged, to all targets.",
		Run:      g.level,
	}, {
		Patterns: []string{"log stderr [true,false]"},
		Short:    "log to standard error",
		Long:     "Without an argument it says whether the log goes to standard error.",
		Run:      g.stderr,
	}, {
		Patterns: []string{"log file [file]"},
		Short:    "log to a file",
		Long:     "Appends the log to the file instead of the one before; directories above it are made. Without an argument it says which file that is.",
		Run:      g.file,
	}, {
		Patterns: []string{"log ring [size]"},
		Short:    "keep the last messages in memory",
		Long:     "With a size it starts an empty ring of that many messages, without one it shows what the ring holds, oldest first.",
		Run:      g.ring,
	}, {
		Patterns: []string{"log filter [filter]"},
		Short:    "suppress messages",
		Long:     "Suppresses messages that contain the text. Without an argument it lists these texts.",
		Run:      g.filter,
	}, {
		Patterns: []string{"log syslog remote <tcp,udp> <address>", "log syslog <local,>"},
		Short:    "log to syslog",
		Long:     "Sends the log, tagged minimega, to the syslog server at host:port, or to the one of this host.",
		Run:      g.syslog,
	}}, g.clear())
}

func (g logs) level(_ context.Context, c *Call) (*minicli.Response, error) {
	for _, name := range []string{"debug", "info", "warn", "error", "fatal"} {
		if !c.Chose(name) {
			continue
		}
		level, err := minilog.ParseLevel(name)
		if err == nil {
			g.log.SetLevel(level)
		}
		return done(err)
	}
	return text(minilog.LevelName(g.log.Level()))
}

func (g logs) stderr(_ context.Context, c *Call) (*minicli.Response, error) {
	on, given := choice(c)
	if !given {
		return truth(g.log.HasStderr())
	}
	g.log.SetStderr(on)
	return done(nil)
}

func (g logs) file(_ context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("file") {
		return text(g.log.Path())
	}
	return done(g.log.SetFile(c.Str("file")))
}

func (g logs) ring(_ context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("size") {
		lines, ok := g.log.Dump()
		if !ok {
			return nil, errs.New(errs.State, "cannot dump log ring, not enabled")
		}
		return text(strings.Join(lines, "\n"))
	}
	size, err := strconv.Atoi(c.Str("size"))
	if err != nil {
		return nil, err
	}
	if size < 1 || size > minilog.MaxRing {
		return nil, errs.New(errs.Invalid, "invalid ring size %d (1 to %d)", size, minilog.MaxRing)
	}
	g.log.SetRing(size)
	return done(nil)
}

func (g logs) filter(_ context.Context, c *Call) (*minicli.Response, error) {
	if c.Has("filter") {
		g.log.AddFilter(c.Str("filter"))
		return done(nil)
	}
	if f := g.log.Filters(); len(f) > 0 {
		return text(fmt.Sprint(f))
	}
	return done(nil)
}

func (g logs) syslog(ctx context.Context, c *Call) (*minicli.Response, error) {
	network := "tcp"
	switch {
	case c.Chose("local"):
		network = ""
	case c.Chose("udp"):
		network = "udp"
	}
	return done(g.log.SetSyslog(ctx, network, c.Str("address")))
}

// clear resets one part of the log, or all.
func (g logs) clear() Command {
	parts := []struct {
		name  string
		reset func() error
	}{
		{"file", func() error { return g.log.SetFile("") }},
		{"mesh", func() error { return g.log.SetNode("", nil) }},
		{"level", func() error { g.log.ResetLevel(); return nil }},
		{"stderr", func() error { g.log.SetStderr(false); return nil }},
		{"filter", func() error { g.log.ClearFilters(); return nil }},
		{"syslog", func() error { g.log.ClearSyslog(); return nil }},
		{"ring", func() error { g.log.SetRing(0); return nil }},
	}
	patterns := []string{"clear log"}
	for _, p := range parts {
		patterns = append(patterns, "clear log <"+p.name+",>")
	}
	return Command{
		Patterns: patterns,
		Short:    "reset logging",
		Long:     "Takes away a target or the filters, or returns to the level minimega was started with; without an argument all of that.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			var first error
			for _, p := range parts {
				if len(c.Choices) > 0 && !c.Chose(p.name) {
					continue
				}
				if err := p.reset(); err != nil && first == nil {
					first = err
				}
			}
			return done(first)
		},
	}
}
