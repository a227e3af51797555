// Package shell is what a person meets at the built-in guest: consoles on the
// serial line and the screen, with line editing, an optional login, and a small
// set of commands.
package shell

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"minimega/internal/guest/cmdline"
	"minimega/internal/version"
)

// System is what the shell needs of the machine it runs on.
type System interface {
	Run(*exec.Cmd) error // starts, and waits for, a program
	Configure(iface string, want []cmdline.Address) error
	PowerOff()
	Reboot()
}

// Console is one place where a person can type.
type Console struct {
	Device   io.ReadWriter // a terminal in raw mode
	Name     string        // as in "tty1"
	Width    int           // of the screen, in characters; 0 means 80x25
	Height   int
	User     string // "" for no login
	Password string
	System   System
}

// Serve talks on the console until its device ends.
func (c Console) Serve(ctx context.Context) error {
	if c.Width <= 0 || c.Height <= 0 {
		c.Width, c.Height = 80, 25
	}
	in, out := newInput(c.Device), &lineEnds{w: c.Device}
	s := &session{Console: c, in: in, out: out, dir: "/"}
	s.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "")
	s.term.AutoCompleteCallback = s.complete
	if err := s.term.SetSize(c.Width, c.Height); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nminimega guest %s on %s\n", version.Version, c.Name)
	for {
		if err := s.login(ctx); err != nil {
			return err
		}
		if err := s.loop(ctx); err != nil {
			return err
		}
	}
}

// session is one console in use. It belongs to the goroutine of Serve.
type session struct {
	Console
	in   *input
	out  io.Writer
	term *term.Terminal
	dir  string
}

func (s *session) login(ctx context.Context) error {
	for s.User != "" {
		s.term.SetPrompt(hostname() + " login: ")
		user, err := s.term.ReadLine()
		if err != nil {
			return err
		}
		if strings.TrimSpace(user) == "" {
			continue
		}
		password, err := s.term.ReadPassword("Password: ")
		if err != nil {
			return err
		}
		if strings.TrimSpace(user) == s.User && password == s.Password {
			break
		}
		wait(ctx, time.Second)
		fmt.Fprint(s.out, "\nLogin incorrect\n")
	}
	fmt.Fprint(s.out, "Type help for the commands.\n")
	return nil
}

// loop reads and runs lines until exit.
func (s *session) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		s.term.SetPrompt(hostname() + "# ")
		line, err := s.term.ReadLine()
		if err != nil && err != term.ErrPasteIndicator {
			return err
		}
		commands, err := parseLine(line)
		if err != nil {
			fmt.Fprintf(s.out, "%v\n", err)
			continue
		}
		for _, c := range commands {
			if c.args[0] == "exit" || c.args[0] == "logout" {
				return nil
			}
			if !s.execute(ctx, c) {
				break
			}
		}
	}
	return ctx.Err()
}

// execute runs one command and says what went wrong; ctrl-C ends it. It
// reports whether the commands after it may run.
func (s *session) execute(parent context.Context, c parsed) bool {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	s.in.onInterrupt(cancel)
	defer s.in.onInterrupt(nil)
	out, done, err := s.output(c)
	if err == nil {
		err = s.run(ctx, c.args, out)
		if e := done(); err == nil {
			err = e
		}
	}
	switch {
	case ctx.Err() != nil:
		fmt.Fprint(s.out, "^C\n")
		return false
	case err != nil:
		fmt.Fprintf(s.out, "%s: %v\n", c.args[0], err)
	}
	return true
}

func (s *session) output(c parsed) (io.Writer, func() error, error) {
	if c.to == "" {
		return s.out, func() error { return nil }, nil
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	if c.add {
		flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
	}
	f, err := os.OpenFile(s.path(c.to), flags, 0o644)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

func (s *session) run(ctx context.Context, args []string, out io.Writer) error {
	if cmd, ok := builtins()[args[0]]; ok {
		return cmd.run(ctx, s, args[1:], out)
	}
	return s.runProgram(ctx, args, out)
}

// complete finishes the first word of a line when Tab is pressed.
func (s *session) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || strings.ContainsAny(line[:pos], " \t") {
		return "", 0, false
	}
	var match []string
	for name := range builtins() {
		if strings.HasPrefix(name, line[:pos]) {
			match = append(match, name)
		}
	}
	if len(match) == 0 {
		return "", 0, false
	}
	slices.Sort(match)
	common := match[0]
	for !strings.HasPrefix(match[len(match)-1], common) {
		common = common[:len(common)-1]
	}
	if len(match) == 1 {
		common += " "
	}
	return common + line[pos:], len(common), true
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil || name == "" || name == "(none)" {
		return "guest"
	}
	return name
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
