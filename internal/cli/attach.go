package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/term"

	"minimega/internal/prompt"
	"minimega/pkg/miniclient"
)

// suggestTime is how long Tab may take.
const suggestTime = 2 * time.Second

// RunAttach is a prompt of the running daemon until `disconnect`, the end of
// the input, or the end of the daemon. It handles SIGINT itself, so ctx should
// not end by it.
func RunAttach(ctx context.Context, cfg Config, std Stdio) int {
	c := dial(ctx, cfg, std)
	if c == nil {
		return exitFailed
	}
	a := &attached{cfg: cfg, std: std, conn: c}
	defer func() { a.conn.Close() }() // also the one of a later dial
	a.listen()
	r, err := prompt.New(prompt.Options{In: std.In, Complete: a.complete, History: prompt.NewHistory(a.history(ctx))})
	if err != nil {
		fmt.Fprintln(std.Err, err)
		return exitFailed
	}
	defer r.Close() // the terminal is the shell's again
	if r.Interactive() {
		// A Ctrl-C that comes too late for its command must not end the program.
		late := make(chan os.Signal, 1)
		signal.Notify(late, os.Interrupt)
		defer signal.Stop(late)
		fmt.Fprintln(std.Out, "`disconnect` or Ctrl-D leaves minimega running, `quit` ends it")
	}
	if err := a.loop(ctx, r); err != nil {
		fmt.Fprintln(std.Err, err)
		return exitFailed
	}
	return exitOK
}

// attached is an interactive client.
type attached struct {
	cfg  Config
	std  Stdio
	conn *miniclient.Conn
	quit bool // the line before was `quit`
}

// prompt is what stands before the cursor.
func (a *attached) prompt() string {
	p := "minimega:" + miniclient.SocketPath(a.cfg.Base)
	if a.cfg.Namespace != "" {
		p += "[" + a.cfg.Namespace + "]"
	}
	return p + "$ "
}

func (a *attached) loop(ctx context.Context, r *prompt.Reader) error {
	for {
		line, err := r.Next(ctx, a.prompt())
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		done, err := a.handle(ctx, strings.TrimSpace(line), r.Interactive())
		if done || err != nil {
			return err
		}
	}
}

// handle acts on one line and reports whether it was the last.
func (a *attached) handle(ctx context.Context, line string, interactive bool) (done bool, err error) {
	again := a.quit
	a.quit = false
	switch {
	case line == "":
		return false, nil
	case line == "disconnect":
		return true, nil
	case line == "quit" && !again:
		a.quit = true
		fmt.Fprintln(a.std.Out, "CAUTION: quit ends the daemon and all its VMs; say `quit` again to do that, or `disconnect` to leave")
		return false, nil
	}
	err = a.run(ctx, a.prefixed(line), interactive)
	if errors.Is(err, miniclient.ErrNoAnswer) && endsMinimega(line) {
		return true, nil
	}
	return false, err
}

// run runs a line and prints its answer. Ctrl-C gives it up.
func (a *attached) run(ctx context.Context, line string, interactive bool) error {
	sig, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	for r, err := range a.conn.Run(sig, line) {
		if err != nil && sig.Err() != nil && ctx.Err() == nil {
			fmt.Fprintln(a.std.Err, "interrupted; a command that cannot stop half-way runs on")
			break
		}
		if err != nil {
			return err
		}
		if r.Rendered != "" {
			if err := a.show(ctx, r.Rendered, interactive); err != nil {
				return err
			}
		}
		printErrors(a.std.Err, r.Resp)
	}
	if sig.Err() != nil && ctx.Err() == nil {
		return a.redial(ctx)
	}
	return nil
}

func (a *attached) show(ctx context.Context, text string, interactive bool) error {
	if interactive {
		return prompt.Page(ctx, a.std.Out, text)
	}
	_, err := fmt.Fprintln(a.std.Out, prompt.Shown(a.std.Out, text))
	return err
}

// redial replaces the connection: hanging up is how a command is cancelled.
func (a *attached) redial(ctx context.Context) error {
	a.conn.Close() // nothing more is wanted of it
	c, err := miniclient.Dial(ctx, a.cfg.Base)
	if err != nil {
		return err
	}
	a.conn = c
	a.listen()
	return nil
}

// listen shows progress messages.
func (a *attached) listen() {
	a.conn.OnStatus(func(text string) { fmt.Fprintln(a.std.Err, prompt.Shown(a.std.Err, text)) })
}

// prefixed puts the namespace before a line.
func (a *attached) prefixed(line string) string {
	if a.cfg.Namespace == "" {
		return line
	}
	return fmt.Sprintf("namespace %q %s", a.cfg.Namespace, line)
}

// complete asks the daemon how a line may go on.
func (a *attached) complete(ctx context.Context, beginning string) []string {
	ctx, cancel := context.WithTimeout(ctx, suggestTime)
	defer cancel()
	head := strings.TrimSuffix(a.prefixed("x"), "x")
	lines, err := a.conn.Suggest(ctx, head+beginning)
	if err != nil {
		// No completion then. If the daemon is gone, the next command says so.
		_ = a.redial(context.WithoutCancel(ctx))
		return nil
	}
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, head)
	}
	return lines
}

// history is what the daemon remembers, for the Up key.
func (a *attached) history(ctx context.Context) []string {
	if !isTerminal(a.std.In) {
		return nil
	}
	var lines []string
	for r, err := range a.conn.Run(ctx, ".record false history") {
		if err != nil {
			return nil // the first command tells why
		}
		for _, h := range r.Resp {
			lines = append(lines, strings.Split(h.Response, "\n")...)
		}
	}
	return lines
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
