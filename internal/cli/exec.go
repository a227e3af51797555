package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"minimega/internal/prompt"
	"minimega/pkg/miniclient"
)

// RunExec runs the command in cfg.Args on the daemon and prints its answer as
// it comes. The status tells of the connection; of the command only with
// cfg.Strict.
func RunExec(ctx context.Context, cfg Config, std Stdio) int {
	line := commandLine(cfg.Namespace, cfg.Args)
	if strings.TrimSpace(line) == "" {
		fmt.Fprintln(std.Err, "-e needs a command, such as `minimega -e vm info`")
		return exitUsage
	}
	if cfg.JSON {
		line = ".json true " + line
	}
	c := dial(ctx, cfg, std)
	if c == nil {
		return exitFailed
	}
	defer c.Close() // all that was wanted is read by then
	if isTerminal(std.Err) {
		c.OnStatus(func(text string) { fmt.Fprintln(std.Err, prompt.Shown(std.Err, text)) })
	}
	failed, err := execute(ctx, c, line, std)
	switch {
	case errors.Is(err, miniclient.ErrNoAnswer) && endsMinimega(strings.TrimPrefix(line, ".json true ")):
		return exitOK
	case err != nil:
		fmt.Fprintln(std.Err, err)
		return exitFailed
	case failed && cfg.Strict:
		return exitFailed
	}
	return exitOK
}

// execute runs a line, prints its answer and reports whether a host failed.
func execute(ctx context.Context, c *miniclient.Conn, line string, std Stdio) (failed bool, err error) {
	for r, err := range c.Run(ctx, line) {
		if err != nil {
			return failed, err
		}
		if r.Rendered != "" {
			if _, err := fmt.Fprintln(std.Out, prompt.Shown(std.Out, r.Rendered)); err != nil {
				return failed, err
			}
		}
		failed = printErrors(std.Err, r.Resp) || failed
	}
	return failed, nil
}

// commandLine makes one line of the arguments of -e. One alone is taken as it
// is; of several, those with white space are quoted.
func commandLine(namespace string, args []string) string {
	if namespace != "" {
		args = append([]string{"namespace", namespace}, args...)
	}
	if len(args) == 1 {
		return args[0]
	}
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = a
		if strings.ContainsFunc(a, unicode.IsSpace) {
			words[i] = strconv.Quote(a)
		}
	}
	return strings.Join(words, " ")
}
