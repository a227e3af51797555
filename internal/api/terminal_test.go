package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/prompt/ptytest"
)

// TestMain is also a daemon with nothing but a prompt, for the tests that need
// a terminal.
func TestMain(m *testing.M) {
	if history := os.Getenv("API_TEST_PROMPT"); history != "" {
		os.Exit(promptMain(history))
	}
	goleak.VerifyTestMain(m)
}

func promptMain(history string) int {
	f := newFakes()
	r, err := f.router()
	if err != nil {
		fmt.Println(err)
		return 2
	}
	t := NewTerminal(r, TerminalOptions{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, History: history, Log: r.opts.Log})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	go func() {
		for range signals {
			if !t.Interrupt() {
				fmt.Println("would end")
				os.Exit(5)
			}
		}
	}()
	err = t.Run(context.Background())
	fmt.Println("run:", err)
	return 0
}

func startPrompt(t *testing.T, history string) *ptytest.Terminal {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "API_TEST_PROMPT="+history, "GORACE=atexit_sleep_ms=0", "PAGER=cat")
	p := ptytest.Start(t, cmd)
	p.Expect("minimega[minimega]$ ")
	return p
}

func TestPromptOnTerminal(t *testing.T) {
	history := filepath.Join(t.TempDir(), "history")
	p := startPrompt(t, history)
	p.Send("echo one\r")
	p.Expect("\r\nbox: one\r\n")
	p.Expect("minimega[minimega]$ ")
	p.Send("fail\r")
	p.Expect("Error (box): no <such> luck\r\n")
	p.Send("namespace foo\r")
	p.Expect("minimega[foo]$ ")
	p.Send("vm sta\t")
	p.Expect("vm start ")
	p.Send("f\t\r")
	p.Expect("Error (box): vm not found: foo-vm")
	p.Send("status\r")
	p.Expect("10%\r\n")
	p.Expect("box: a\r\n")
	p.Send("big 100\r")
	p.Expect(strings.Repeat("x", 100))
	p.Expect("minimega[foo]$ ")
	p.Send("echo half\x03")
	p.Expect("^C")
	p.Expect("minimega[foo]$ ")
	p.Send("\x04")
	p.Expect("ends minimega and all its VMs")
	p.Expect("minimega[foo]$ ")
	p.Send("quit\r")
	p.Expect("run: <nil>")
	if status := p.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	if !p.Echoes() {
		t.Error("the terminal is not as it was")
	}

	// The next daemon remembers what was typed.
	p = startPrompt(t, history)
	p.Send("\x1b[A\x1b[A\r")
	p.Expect("\r\nbox: " + strings.Repeat("x", 100))
	p.Expect("$ ")
	p.Send("\x04")
	p.Expect("$ ")
	p.Send("\x04")
	p.Expect("run: EOF")
}

// Ctrl-C while a command runs is for the command, and the second for the daemon.
func TestPromptInterrupt(t *testing.T) {
	p := startPrompt(t, "none/none")
	p.Send("linger\r")
	p.Expect("waiting")
	p.Send("\x03")
	p.Expect("interrupted")
	p.Expect("Error (box): " + ErrClientGone.Error())
	p.Expect("$ ")
	p.Send("stay\r")
	p.Expect("waiting")
	p.Send("\x03")
	p.Expect("interrupted")
	p.Send("\x03")
	p.Expect("would end")
	if status := p.Wait(); status != 5 {
		t.Errorf("status %d", status)
	}
}

func TestPromptWithoutTerminal(t *testing.T) {
	r := newFakes().newRouter(t)
	var out, errs strings.Builder
	term := NewTerminal(r, TerminalOptions{In: strings.NewReader("echo a\n\n# c\nfail\nstream\nquit\necho never\n"), Out: &out, Err: &errs, Log: r.opts.Log})
	if err := term.Run(context.Background()); err != nil {
		t.Error(err)
	}
	if out.String() != "box: a\nbox: a\nbox: b\nbox: c\n" || errs.String() != "Error (box): no <such> luck\n" {
		t.Errorf("%q %q", &out, &errs)
	}
	term = NewTerminal(r, TerminalOptions{In: strings.NewReader("echo a"), Out: &out, Err: &errs, Log: r.opts.Log})
	if err := term.Run(context.Background()); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if term.Interrupt() {
		t.Error("interrupts nothing")
	}
}

// The end of the daemon ends a prompt that waits for input.
func TestPromptCancelled(t *testing.T) {
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer w.Close()
	r := newFakes().newRouter(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	term := NewTerminal(r, TerminalOptions{In: in, Out: io.Discard, Err: io.Discard, Log: r.opts.Log})
	if err := term.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
