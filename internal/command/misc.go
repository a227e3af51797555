package command

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/version"
	"minimega/pkg/minicli"
)

// Machine is what the commands about the daemon and its host act on.
type Machine struct {
	// Facts are those of the host, gathered anew by each call.
	Facts func() host.Facts
	// Checks are what the host must have; see host.BasicChecks.
	Checks []host.Check
	// Args are the command line flags, by name and in order, and their values.
	Args func() (names, values []string)
	// Quit makes the daemon end after the delay. It returns at once.
	Quit func(delay time.Duration)
	// Nuke makes the daemon end and remove all of its base directory. It
	// returns at once.
	Nuke func()
}

// Misc are the commands about the daemon and its host.
func Misc(m Machine) []Command {
	return []Command{{
		Patterns: []string{"version"},
		Short:    "show the version of minimega",
		Long:     "Shows version, revision and date of the program, on every host.",
		Scope:    FanOut,
		Run: func(context.Context, *Call) (*minicli.Response, error) {
			return text("minimega " + version.String())
		},
	}, {
		Patterns: []string{"args"},
		Short:    "show the command line flags",
		Long:     "Shows all flags of the daemon with the values they have.",
		Run: func(context.Context, *Call) (*minicli.Response, error) {
			names, values := m.Args()
			return table(names, [][]string{values})
		},
	}, {
		Patterns: []string{"quit [delay]"},
		Short:    "end minimega",
		Long:     "Ends VMs, networks and the daemon, at once or after that many seconds.",
		Run:      m.quit,
	}, {
		Patterns: []string{"nuke"},
		Short:    "end minimega and remove all that it may have left",
		Long: "Ends VMs, networks and the daemon; then ends by force what is left of the machines of this base directory, and removes its\n" +
			"interfaces, all interfaces with `mega_tap` in their name that belong to no other minimega that runs, and the whole base\n" +
			"directory, with the files directory if that lies in it.",
		Run: func(context.Context, *Call) (*minicli.Response, error) {
			m.Nuke()
			return nil, ErrNoReply
		},
	}, {
		Patterns: []string{"check", "check <fix,-fix>"},
		Short:    "check what this host lacks",
		Long: "Says what minimega needs and does not find on this host, one thing a line, each with its remedy. What it can do without is shown as well, and is no error.\n" +
			"`check fix` does what is safe to do: it loads modules, raises limits of this process, and removes what is left of an earlier\n" +
			"minimega on the same base directory. Why a VM does not run tells `vm why`.",
		Run: m.check,
	}, m.host()}
}

func (m Machine) quit(_ context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("delay") {
		m.Quit(0)
		return nil, ErrNoReply
	}
	n, err := strconv.Atoi(c.Str("delay"))
	if err != nil {
		return nil, err
	}
	const most = 365 * 24 * 3600
	if n < 0 || n > most {
		return nil, errs.New(errs.Invalid, "invalid delay %d (0 to %d seconds)", n, most)
	}
	m.Quit(time.Duration(n) * time.Second)
	return text(fmt.Sprintf("quitting after %d seconds", n))
}

func (m Machine) check(ctx context.Context, c *Call) (*minicli.Response, error) {
	var missing, notes []string
	found := []host.Diagnosis{}
	for _, f := range host.RunChecks(ctx, m.Checks) {
		d := f.Diagnosis()
		if (c.Chose("fix") || c.Chose("-fix")) && f.Check.Fix != nil {
			err := f.Fix(ctx)
			d.Fixed = err == nil
			f.Err = cmp.Or(err, f.Err)
		}
		found = append(found, d)
		switch {
		case d.Fixed:
			notes = append(notes, "fixed: "+f.String())
		case f.Check.Optional:
			notes = append(notes, f.String())
		default:
			missing = append(missing, f.String())
		}
	}
	return &minicli.Response{Response: strings.Join(notes, "\n"), Error: strings.Join(missing, "\n"), Data: found}, nil
}
