// Package cli is what the minimega program does besides being a daemon: it
// parses the flags, and as a client of a running daemon it runs one command
// (-e), is an interactive prompt (-attach), an end of a named pipe (-pipe), or
// completes command lines for a shell.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"minimega/internal/prompt"
	"minimega/internal/version"
	"minimega/pkg/miniclient"
)

// Stdio is where a mode reads and writes: os.Stdin and so on, or a test's.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// The exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // not connected, or a command failed under -strict
	exitUsage  = 2
)

// RunVersion prints what -version prints.
func RunVersion(std Stdio) int {
	fmt.Fprintf(std.Out, "minimega %s\n%s\n", version.String(), copyright)
	return exitOK
}

const copyright = "Copyright the minimega authors. Licensed under the Apache License, Version 2.0."

// dial connects to the daemon of cfg, or says what is wrong and what to do.
func dial(ctx context.Context, cfg Config, std Stdio) *miniclient.Conn {
	c, err := miniclient.Dial(ctx, cfg.Base)
	switch {
	case err == nil:
		return c
	case errors.Is(err, fs.ErrPermission):
		fmt.Fprintf(std.Err, "minimega at %s is not open to this user: run as the user that started it, or have it started with -group (%v)\n", cfg.Base, err)
	default:
		fmt.Fprintf(std.Err, "no minimega at %s: start it with `minimega%s` (%v)\n", cfg.Base, baseFlag(cfg), rootCause(err))
	}
	return nil
}

// baseFlag is how the base directory is given again, with a leading blank.
func baseFlag(cfg Config) string {
	if cfg.Base == DefaultBase {
		return ""
	}
	return " -base " + cfg.Base
}

// rootCause is the innermost error, which has no more context than is needed.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// printErrors prints a line for each host that failed and reports whether any did.
func printErrors(w io.Writer, rs miniclient.Responses) bool {
	if text := rs.Error(); text != "" {
		fmt.Fprintln(w, prompt.Shown(w, text))
		return true
	}
	return false
}

// endsMinimega reports whether a command line ends the daemon, which then
// closes the connection without an answer. Wrappers before it may be any.
func endsMinimega(line string) bool {
	for word := range strings.FieldsSeq(line) {
		if word == "nuke" || word != "" && strings.HasPrefix("quit", word) {
			return true
		}
	}
	return false
}
