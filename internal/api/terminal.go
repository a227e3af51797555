package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"minimega/internal/command"
	"minimega/internal/prompt"
	"minimega/pkg/minicli"
)

// TerminalOptions say where the daemon's own prompt is.
type TerminalOptions struct {
	In      io.Reader // os.Stdin; lines are edited when it is a terminal
	Out     io.Writer // os.Stdout; a terminal gets long answers through a pager
	Err     io.Writer
	History string // file that keeps what was typed; "" for none
	Log     *slog.Logger
}

// justEnded is how long after a command's end Ctrl-C is still meant for it: it
// must not end the daemon because the command was faster.
const justEnded = 300 * time.Millisecond

// Terminal is the daemon's own prompt.
type Terminal struct {
	router *Router
	opts   TerminalOptions

	mu     sync.Mutex // guards the fields below
	person bool       // somebody types; without, signals are the daemon's
	cancel context.CancelCauseFunc
	warned bool // the running command was interrupted once
	paging bool // a pager has the terminal, and gets the same signals
	ended  time.Time
}

// NewTerminal makes the prompt of router's daemon.
func NewTerminal(router *Router, o TerminalOptions) *Terminal {
	return &Terminal{router: router, opts: o}
}

// Run reads and runs lines. It returns nil after `quit`, io.EOF at the end of
// the input (a person has to say Ctrl-D twice), and ctx's error when ctx ends.
// The terminal is then as it was.
func (t *Terminal) Run(ctx context.Context) error {
	s := t.router.NewSession()
	var history *prompt.History
	if t.opts.History != "" {
		history = prompt.OpenHistory(t.opts.History, t.opts.Log)
	}
	r, err := prompt.New(prompt.Options{In: t.opts.In, History: history, Keep: t.router.Conceal, Complete: func(ctx context.Context, line string) []string {
		return t.router.Suggest(ctx, s, line)
	}})
	if err != nil {
		return fmt.Errorf("prompt: %w", err)
	}
	t.mu.Lock()
	t.person = r.Interactive()
	t.mu.Unlock()
	err = t.loop(ctx, s, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return err
}

// Interrupt is for the signal of Ctrl-C: it cancels the command that runs at
// the prompt. False means that the signal is for the daemon: no command runs or
// has just ended, it is the second signal for the same one, or nobody types.
func (t *Terminal) Interrupt() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !t.person:
		return false
	case t.paging, t.cancel == nil && time.Since(t.ended) < justEnded:
		return true
	case t.cancel == nil || t.warned:
		return false
	}
	t.warned = true
	fmt.Fprintln(t.opts.Err, "interrupted; a command that cannot stop half-way runs on (Ctrl-C again ends minimega)")
	t.cancel(ErrClientGone)
	return true
}

func (t *Terminal) loop(ctx context.Context, s *command.Session, r *prompt.Reader) error {
	left := false // the last input was Ctrl-D
	for {
		line, err := r.Next(ctx, "minimega["+s.Namespace()+"]$ ")
		switch {
		case errors.Is(err, io.EOF) && r.Interactive() && !left:
			left = true
			fmt.Fprintln(t.opts.Out, "\n`quit`, or Ctrl-D once more, ends minimega and all its VMs")
			continue
		case err != nil:
			return err
		}
		left = false
		if err := t.run(ctx, s, line); errors.Is(err, command.ErrNoReply) {
			return nil
		}
	}
}

// run runs one line and prints its answer.
func (t *Terminal) run(ctx context.Context, s *command.Session, line string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.setRunning(cancel)
	defer t.setRunning(nil)
	return t.router.RunLine(ctx, s, line, func(b command.Batch) error { return t.print(ctx, b) })
}

func (t *Terminal) setRunning(cancel context.CancelCauseFunc) {
	t.mu.Lock()
	t.cancel, t.warned, t.ended = cancel, false, time.Now()
	t.mu.Unlock()
}

func (t *Terminal) setPaging(on bool) { t.mu.Lock(); t.paging = on; t.mu.Unlock() }

func (t *Terminal) print(ctx context.Context, b command.Batch) error {
	if b.Status != "" {
		_, err := fmt.Fprintln(t.opts.Err, b.Status)
		return err
	}
	var err error
	if text := b.Resps.Render(b.Flags); text != "" {
		t.setPaging(true)
		err = prompt.Page(context.WithoutCancel(ctx), t.opts.Out, text)
		t.setPaging(false)
	}
	return errors.Join(err, printErrors(t.opts.Err, b.Resps))
}

// printErrors prints a line for each response that failed.
func printErrors(w io.Writer, rs minicli.Responses) error {
	for _, r := range rs {
		if r.Error == "" {
			continue
		}
		if _, err := fmt.Fprintln(w, prompt.Shown(w, fmt.Sprintf("Error (%s): %s", r.Host, r.Error))); err != nil {
			return err
		}
	}
	return nil
}
