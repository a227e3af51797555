package command

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"minimega/internal/jobs"
	"minimega/pkg/minicli"
)

// processes runs the commands about programs on this host.
type processes struct{ jobs *jobs.Table }

// Process are the commands that run programs on this host.
func Process(t *jobs.Table) []Command {
	p := processes{t}
	id := map[string]Completer{"id": p.ids}
	return []Command{{
		Patterns:      []string{"shell <command>..."},
		Short:         "run a program and wait for it",
		Long:          "Runs a program, found in $PATH, without a shell in between: `shell bash -c \"...\"` has pipes and wildcards. Its output is the response, what it writes to standard error is the error, if it exits with 0. It is ended when the client goes away.",
		Run:           p.shell,
		Interruptible: true,
	}, {
		Patterns: []string{"background <command>..."},
		Short:    "run a program in the background",
		Long: "Starts a program, found in $PATH, and returns. Its output is logged at level info and kept, see `background-output`. It is ended when minimega ends.\n" +
			"When minimega was killed, it runs on without its output, and ends with the next one on the same base directory.",
		Run: p.background,
	}, {
		Patterns: []string{"background-status [id]"},
		Short:    "list background programs",
		Long:     "Lists the programs that `background` started, or one of them: those that run and the 50 that ended last.",
		Run:      p.status,
		Suggest:  id,
	}, {
		Patterns: []string{"background-output <id>"},
		Short:    "show what a background program printed",
		Long:     "Shows the standard output of a background program that has ended, at most its first 16 MiB.",
		Run: p.output(func(stdout, _ string) string {
			return stdout
		}),
		Suggest: id,
	}, {
		Patterns: []string{"background-error <id>"},
		Short:    "show what a background program printed to standard error",
		Long:     "Shows the standard error of a background program that has ended, at most its first 16 MiB.",
		Run: p.output(func(_, stderr string) string {
			return stderr
		}),
		Suggest: id,
	}, {
		Patterns: []string{"clear background-status"},
		Short:    "forget background programs that have ended",
		Long:     "Removes the programs that have ended from the table; those that run stay.",
		Run: func(context.Context, *Call) (*minicli.Response, error) {
			return text(fmt.Sprintf("Cleared %d elements from background-status", t.Clear()))
		},
	}}
}

func (p processes) shell(ctx context.Context, c *Call) (*minicli.Response, error) {
	stdout, stderr, err := p.jobs.Run(ctx, c.List("command"))
	if err != nil {
		return nil, err
	}
	return &minicli.Response{Response: stdout, Error: stderr}, nil
}

func (p processes) background(_ context.Context, c *Call) (*minicli.Response, error) {
	id, err := p.jobs.Start(c.List("command"))
	if err != nil {
		return nil, err
	}
	return text(fmt.Sprintf("Started background process with id %d", id))
}

func (p processes) status(_ context.Context, c *Call) (*minicli.Response, error) {
	list := p.jobs.List()
	if c.Has("id") {
		id, err := strconv.Atoi(c.Str("id"))
		if err != nil {
			return nil, err
		}
		j, err := p.jobs.Job(id)
		if err != nil {
			return nil, err
		}
		list = []jobs.Job{j}
	}
	rows := make([][]string, 0, len(list))
	for _, j := range list {
		rows = append(rows, []string{
			strconv.Itoa(j.ID), strconv.Itoa(j.PID), strconv.FormatBool(j.Running), j.Error,
			stamp(j.Start), stamp(j.End), j.CommandLine(),
		})
	}
	return table([]string{"ID", "PID", "RUNNING", "ERROR", "TIME_START", "TIME_END", "COMMAND"}, rows)
}

// stamp is a time as background-status shows it, "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format("Jan 02 15:04:05 MST")
}

func (p processes) output(pick func(stdout, stderr string) string) func(context.Context, *Call) (*minicli.Response, error) {
	return func(_ context.Context, c *Call) (*minicli.Response, error) {
		id, err := strconv.Atoi(c.Str("id"))
		if err != nil {
			return nil, err
		}
		stdout, stderr, err := p.jobs.Output(id)
		if err != nil {
			return nil, err
		}
		return text(pick(stdout, stderr))
	}
}

func (p processes) ids(_ *Call, prefix string) []string {
	var rows [][]string
	for _, j := range p.jobs.List() {
		rows = append(rows, []string{strconv.Itoa(j.ID)})
	}
	return startingWith(prefix, rows)
}
