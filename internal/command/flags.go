package command

import (
	"context"
	"os"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// flagSpec is one of the output flags.
type flagSpec struct {
	name  string // with its dot
	short string
	long  string
	get   func(minicli.Flags) bool
	set   func(*minicli.Flags, bool)
}

// flagSpecs lists them in the order of the help.
func flagSpecs() []flagSpec {
	field := func(f func(*minicli.Flags) *bool) (func(minicli.Flags) bool, func(*minicli.Flags, bool)) {
		return func(v minicli.Flags) bool { return *f(&v) }, func(v *minicli.Flags, on bool) { *f(v) = on }
	}
	mode := func(m minicli.Mode) (func(minicli.Flags) bool, func(*minicli.Flags, bool)) {
		return func(v minicli.Flags) bool { return v.Mode == m }, func(v *minicli.Flags, on bool) {
			switch {
			case on:
				v.Mode = m
			case v.Mode == m:
				v.Mode = minicli.Text
			}
		}
	}
	spec := func(name, short, long string, get func(minicli.Flags) bool, set func(*minicli.Flags, bool)) flagSpec {
		return flagSpec{name, short, long, get, set}
	}
	csv, setCSV := mode(minicli.CSV)
	json, setJSON := mode(minicli.JSON)
	headers, setHeaders := field(func(f *minicli.Flags) *bool { return &f.Headers })
	annotate, setAnnotate := field(func(f *minicli.Flags) *bool { return &f.Annotate })
	sort, setSort := field(func(f *minicli.Flags) *bool { return &f.Sort })
	compress, setCompress := field(func(f *minicli.Flags) *bool { return &f.Compress })
	record, setRecord := field(func(f *minicli.Flags) *bool { return &f.Record })
	preprocess, setPreprocess := field(func(f *minicli.Flags) *bool { return &f.Preprocess })
	return []flagSpec{
		spec(".csv", "print tables as CSV", "Off by default. Turning it on turns .json off.", csv, setCSV),
		spec(".json", "print responses as JSON", "Off by default. Turning it on turns .csv off.", json, setJSON),
		spec(".headers", "print the header of tables", "On by default.", headers, setHeaders),
		spec(".annotate", "print which host a response or row is from", "On by default.", annotate, setAnnotate),
		spec(".sort", "sort the rows of tables", "On by default. Rows are compared column by column, integers as numbers.", sort, setSort),
		spec(".compress", "print equal responses of several hosts once", "On by default.", compress, setCompress),
		spec(".record", "keep commands in the history", "On by default.", record, setRecord),
		spec(".preprocess", "expand variables and file: and http: in arguments", "On by default. Off, a `$` or a URL reaches the command as typed.", preprocess, setPreprocess),
	}
}

// Flags are the commands about how responses are shown, and about aliases and
// environment.
func Flags() []Command {
	var all []Command
	for _, s := range flagSpecs() {
		all = append(all, s.command(), s.nested())
		if s.name == ".compress" {
			all = append(all, filterCommand(), columnsCommand())
		}
	}
	return append(all, aliasCommand(), unaliasCommand(), envCommand())
}

// choice is the value of a `true,false` argument and whether it was given.
func choice(c *Call) (on, given bool) {
	return c.Chose("true"), c.Chose("true") || c.Chose("false")
}

func (s flagSpec) command() Command {
	return Command{
		Patterns: []string{s.name + " [true,false]"},
		Short:    s.short,
		Long:     s.long + " Without an argument it says what is set, else it sets it for this and for later sessions.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			on, given := choice(c)
			if !given {
				return truth(s.get(c.Flags))
			}
			f := c.Session.Flags()
			s.set(&f, on)
			c.Session.SetFlags(f)
			return done(nil)
		},
	}
}

func (s flagSpec) nested() Command {
	return Command{
		Patterns: []string{s.name + " <true,false> (command)"},
		Short:    s.short + ", for one command",
		Long:     "Runs the command with the flag set as given; the setting of the session stays.",
		Stream: func(ctx context.Context, c *Call) error {
			n := *c
			s.set(&n.Flags, c.Chose("true"))
			return c.Runner.Run(ctx, &n, c.Sub)
		},
	}
}

// truth answers with true or false.
func truth(v bool) (*minicli.Response, error) {
	if v {
		return text("true")
	}
	return text("false")
}

func aliasCommand() Command {
	return Command{
		Patterns: []string{".alias", ".alias <alias>..."},
		Short:    "list or define aliases",
		Long:     "`.alias vmi=vm info` lets `vmi` stand for `vm info` as the first word of a line. Aliases do not count in files that are read, nor within other commands.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			if len(c.List("alias")) == 0 {
				return table([]string{"alias", "expansion"}, pairs(c.Session.Shared.Aliases()))
			}
			name, expansion, ok := strings.Cut(strings.Join(c.List("alias"), " "), "=")
			if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(name, " \t") {
				return nil, errs.New(errs.Invalid, "expected alias of format `alias=expansion`")
			}
			c.Session.Shared.SetAlias(name, strings.TrimSpace(expansion))
			return done(nil)
		},
	}
}

func unaliasCommand() Command {
	return Command{
		Patterns: []string{".unalias <alias>"},
		Short:    "remove an alias",
		Long:     "Removes the alias; one that does not exist is no error.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			c.Session.Shared.SetAlias(c.Str("alias"), "")
			return done(nil)
		},
		Suggest: map[string]Completer{"alias": func(c *Call, prefix string) []string {
			return startingWith(prefix, pairs(c.Session.Shared.Aliases()))
		}},
	}
}

// pairs are the rows of a map, sorted.
func pairs(m map[string]string) [][]string {
	var rows [][]string
	for k, v := range m {
		rows = append(rows, []string{k, v})
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	return rows
}

// startingWith are the first cells of the rows, as far as they start with prefix.
func startingWith(prefix string, rows [][]string) []string {
	var words []string
	for _, r := range rows {
		if strings.HasPrefix(r[0], prefix) {
			words = append(words, r[0])
		}
	}
	return words
}

func envCommand() Command {
	return Command{
		Patterns: []string{".env [name]", ".env <name> <value>"},
		Short:    "show or set the daemon's environment",
		Long:     "These are the variables that `$NAME` in an argument stands for and that programs started by `shell` and `background` see. An empty value (\"\") removes the variable.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			switch {
			case !c.Has("name"):
				return table([]string{"key", "value"}, environment())
			case !c.Has("value"):
				return text(os.Getenv(c.Str("name")))
			}
			return done(setenv(c.Str("name"), c.Str("value")))
		},
		Suggest: map[string]Completer{"name": func(_ *Call, prefix string) []string {
			return startingWith(prefix, environment())
		}},
	}
}

func environment() [][]string {
	var rows [][]string
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		rows = append(rows, []string{k, v})
	}
	return rows
}

func setenv(name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
		return errs.New(errs.Invalid, "set environment variable %q: a name must not be empty or contain `=`, and neither name nor value a NUL", name)
	}
	if value == "" {
		return os.Unsetenv(name)
	}
	return os.Setenv(name, value)
}
