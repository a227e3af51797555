package daemon

import (
	"context"
	"path/filepath"
	"slices"

	"minimega/internal/command"
	"minimega/internal/jobs"
	"minimega/internal/minilog"
	"minimega/internal/vm"
	"minimega/internal/vm/kvm"
	"minimega/pkg/minicli"
)

// Language makes the command language out of all families of commands.
func Language(deps *command.Deps, machine command.Machine, table *jobs.Table, logs *minilog.Log) (*minicli.CLI, error) {
	var cli *minicli.CLI // help is asked for only once it is there
	help := func(words []string) string { return cli.Help(words) }
	all := slices.Concat(
		command.Flags(), command.History(), command.Script(deps.Files, help), command.Process(table),
		command.Log(logs), command.Debug(deps.Files), command.Misc(machine), command.Experiment(deps))
	handlers := make([]*minicli.Handler, len(all))
	for i := range all {
		c := &all[i]
		handlers[i] = &minicli.Handler{HelpShort: c.Short, HelpLong: c.Long, Patterns: c.Patterns, Last: c.Last, Meta: c}
	}
	var err error
	cli, err = minicli.New(handlers...)
	return cli, err
}

// qemu answers the questions of commands about QEMU.
type qemu struct{ *kvm.Engine }

// Arguments returns the command line as text.
func (q qemu) Arguments(ctx context.Context, id int, dir string, c *vm.Config) (before, after string, err error) {
	b, a, err := q.Engine.Arguments(ctx, id, dir, c)
	return kvm.Join(b), kvm.Join(a), err
}

// cacheDir is where findings about the machine are kept between starts.
func cacheDir(base string) string { return filepath.Join(base, "cache") }
