// Package prompt reads command lines from a person at a terminal, with
// editing, history and completion, or from whatever else stdin is; and shows
// long answers through a pager.
package prompt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/peterh/liner"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"minimega/pkg/minicli"
)

// maxLine bounds a line that is read where no terminal is, in bytes.
const maxLine = 4 << 20

// Options say where lines come from.
type Options struct {
	In io.Reader // edited only when it is os.Stdin and a terminal
	// Complete returns the lines that the beginning of one can become.
	Complete func(ctx context.Context, beginning string) []string
	History  *History // what Up recalls; nil for nothing
	// Keep returns what the history's file keeps of a line, "" for nothing; nil
	// keeps lines as they are.
	Keep func(line string) string
}

// Reader reads lines. It belongs to one goroutine, Close excepted.
type Reader struct {
	in     io.Reader
	edit   *liner.State // nil where no terminal is
	cooked *unix.Termios
	raw    *unix.Termios
	hist   *History
	keep   func(string) string
	ctx    context.Context
	cancel context.CancelFunc

	next  chan string // prompts to read a line for
	lines chan line
}

type line struct {
	text string
	err  error
}

// New makes a reader. When it is interactive the terminal is in the reader's
// hands only while Next waits.
func New(o Options) (*Reader, error) {
	r := &Reader{in: o.In, hist: o.History, keep: o.Keep, next: make(chan string), lines: make(chan line, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	if isTerminal(o.In) && isTerminal(os.Stdout) {
		if err := r.startEditor(o); err != nil {
			r.cancel()
			return nil, err
		}
	}
	read := r.plain()
	if r.edit != nil {
		read = r.edited
	}
	go r.loop(read)
	return r, nil
}

// Interactive reports whether a person types.
func (r *Reader) Interactive() bool { return r.edit != nil }

// Next shows the prompt, unless nobody is there to see it, and waits for a
// line. io.EOF is the end of the input, or Ctrl-D on an empty line.
func (r *Reader) Next(ctx context.Context, prompt string) (string, error) {
	select {
	case r.next <- prompt:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-r.ctx.Done():
		return "", io.ErrClosedPipe
	}
	select {
	case l := <-r.lines:
		return l.text, l.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// Close gives the terminal back as it was. A read that waits is interrupted
// where the input can be; on a terminal it lasts until the process ends.
func (r *Reader) Close() error {
	r.cancel()
	if d, ok := r.in.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = d.SetReadDeadline(time.Unix(1, 0)) // not every input can do that
	}
	if r.edit != nil {
		return r.edit.Close()
	}
	return nil
}

// loop reads a line for each prompt that is asked for.
func (r *Reader) loop(read func(prompt string) (string, error)) {
	for {
		select {
		case p := <-r.next:
			text, err := read(p)
			r.lines <- line{text, err}
		case <-r.ctx.Done():
			return
		}
	}
}

// startEditor takes over the terminal's settings and gives them back at once:
// they are changed only while a line is edited, so that whatever happens to
// the process in between leaves a usable terminal.
func (r *Reader) startEditor(o Options) (err error) {
	if r.cooked, err = mode(); err != nil {
		return err
	}
	r.edit = liner.NewLiner()
	if r.raw, err = mode(); err != nil {
		return errors.Join(err, r.edit.Close())
	}
	// Before the prompt is seen, not a moment after as the editor does it:
	// Ctrl-C must never be a signal then.
	r.raw.Lflag &^= unix.ISIG
	r.edit.SetTabCompletionStyle(liner.TabPrints)
	r.edit.SetBeep(false)
	if o.Complete != nil {
		r.edit.SetWordCompleter(wordCompleter(r.ctx, o.Complete))
	}
	for _, l := range o.History.Lines() {
		r.edit.AppendHistory(l)
	}
	return setMode(r.cooked)
}

// edited reads a line from a person. Ctrl-C clears the line.
func (r *Reader) edited(prompt string) (string, error) {
	if err := setMode(r.raw); err != nil {
		return "", err
	}
	text, err := r.edit.Prompt(prompt)
	if err == nil && strings.TrimSpace(text) != "" {
		r.edit.AppendHistory(text)
		if r.keep == nil {
			r.hist.Add(text)
		} else if kept := r.keep(text); kept != "" {
			r.hist.Add(kept)
		}
	}
	return text, errors.Join(err, setMode(r.cooked))
}

// plain reads lines from anything else.
func (r *Reader) plain() func(string) (string, error) {
	s := bufio.NewScanner(r.in)
	s.Buffer(nil, maxLine)
	return func(string) (string, error) {
		if s.Scan() {
			return s.Text(), nil
		}
		if err := s.Err(); err != nil {
			return "", err
		}
		return "", io.EOF
	}
}

// wordCompleter shows only the words that come into question, not whole lines.
func wordCompleter(ctx context.Context, complete func(context.Context, string) []string) liner.WordCompleter {
	return func(text string, pos int) (head string, words []string, tail string) {
		runes := []rune(text)
		before, tail := string(runes[:pos]), string(runes[pos:])
		start, _, ok := minicli.LastWord(before)
		if !ok {
			return before, nil, tail
		}
		for _, l := range complete(ctx, before) {
			if len(l) >= start && l[:start] == before[:start] {
				words = append(words, l[start:])
			}
		}
		if len(words) == 1 && !strings.HasSuffix(words[0], "/") {
			words[0] += " "
		}
		return before[:start], words, tail
	}
}

// mode returns the settings of the terminal on stdin (termios(3)).
func mode() (*unix.Termios, error) { return unix.IoctlGetTermios(unix.Stdin, unix.TCGETS) }

func setMode(m *unix.Termios) error { return unix.IoctlSetTermios(unix.Stdin, unix.TCSETS, m) }

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && (f == os.Stdin || f == os.Stdout) && term.IsTerminal(int(f.Fd()))
}
