package command

import (
	"context"

	"minimega/pkg/minicli"
)

func filterCommand() Command {
	return Command{
		Patterns: []string{".filter <filter> (command)"},
		Short:    "show only some rows of a table",
		Long:     "Keeps the rows in which column=value, column!=value, column~value (contains) or column!~value. Case does not count; a column may be abbreviated. `host` stands for the host a row is from. Filters can be nested.",
		Stream: func(ctx context.Context, c *Call) error {
			f, err := minicli.ParseFilter(c.Str("filter"))
			if err != nil {
				return err
			}
			return rewriting(ctx, c, f.Apply)
		},
	}
}

func columnsCommand() Command {
	return Command{
		Patterns: []string{".columns <columns as csv> (command)"},
		Short:    "show only some columns of a table",
		Long:     "Shows the given columns, in that order: `.columns name,state vm info`. A column may be abbreviated.",
		Stream: func(ctx context.Context, c *Call) error {
			names := minicli.SplitColumns(c.Str("columns"))
			return rewriting(ctx, c, func(rs minicli.Responses) (minicli.Responses, error) {
				return minicli.Columns(rs, names)
			})
		},
	}
}

// rewriting runs the command nested in c and passes each of its batches
// through f. What f fails on becomes an error; the command runs on.
func rewriting(ctx context.Context, c *Call, f func(minicli.Responses) (minicli.Responses, error)) error {
	n := *c
	n.Emit = func(b Batch) error {
		if len(b.Resps) == 0 {
			return c.Emit(b)
		}
		out, err := f(b.Resps)
		if err != nil {
			out = apart(b.Resps, f)
		}
		return c.Emit(Batch{Resps: out, Flags: b.Flags})
	}
	return c.Runner.Run(ctx, &n, c.Sub)
}

// apart passes each response through f alone, so that a host whose answer has
// another form hides nobody else's. What fails for all is one error.
func apart(rs minicli.Responses, f func(minicli.Responses) (minicli.Responses, error)) minicli.Responses {
	var out minicli.Responses
	failed := 0
	for _, r := range rs {
		one, err := f(minicli.Responses{r})
		if err != nil {
			failed++
			one = minicli.Responses{{Host: r.Host, Error: err.Error()}}
		}
		out = append(out, one...)
	}
	if failed == len(rs) {
		return out[:1]
	}
	return out
}
