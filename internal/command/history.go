package command

import (
	"context"
	"os"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/pkg/minicli"
)

// History are the commands about what was typed so far.
func History() []Command {
	return []Command{{
		Patterns: []string{"history"},
		Short:    "show the commands run so far",
		Long:     "Shows the lines that ran, of all sessions, oldest first; at most 10000. `.record false` in front of a command keeps it out.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			return text(strings.Join(c.Session.Shared.History(), "\n"))
		},
	}, {
		Patterns: []string{"clear history"},
		Short:    "forget the commands run so far",
		Long:     "Empties the history. This command is not kept in it.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			c.Session.Shared.ClearHistory()
			return done(nil)
		},
	}, {
		Patterns: []string{"write <file>"},
		Short:    "write the commands run so far to a file",
		Long:     "Writes the history to a file that `read` runs again. A relative path counts from the daemon's working directory. A file that is there is replaced.",
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			return done(writeHistory(c.Str("file"), c.Session.Shared.History()))
		},
	}}
}

// writeHistory replaces the file; it never follows a link, nor touches what is
// no ordinary file, such as a device.
func writeHistory(path string, lines []string) error {
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() && st.Mode()&os.ModeSymlink == 0 {
		return errs.New(errs.Invalid, "write history: %s is not an ordinary file", path)
	}
	return host.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600)
}
