package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// openPty returns both ends of a new terminal.
func openPty() (master, terminal *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 200, Col: 250})
	}
	if err == nil {
		terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, terminal, nil
}

// screen collects what a program shows on its terminal.
type screen struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}
func (s *screen) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.text.String() }

// cmdType runs a program on a terminal in the script's host and types a file
// into it, each line when the prompt has come back: type FILE PROGRAM ARGS...
// What it shows is stored in the file `screen`.
func cmdType(ts *testscript.TestScript, neg bool, args []string) {
	input := ts.ReadFile(args[0])
	master, terminal, err := openPty()
	ts.Check(err)
	defer master.Close()
	cmd := theHost(ts).command(append([]string{program}, args[2:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = terminal, terminal, terminal, ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TERM=xterm", "TMPDIR="+ts.MkAbs("tmp"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	terminal.Close()
	var shown screen
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = shown.Write(buf[:n])
			if err != nil {
				return // the program has ended
			}
		}
	}()
	err = typeLines(cmd, master, &shown, input)
	if err != nil {
		_ = cmd.Process.Kill()
	}
	werr := cmd.Wait()
	<-copied
	ts.Check(os.WriteFile(ts.MkAbs("screen"), []byte(shown.String()), 0o644))
	if err != nil || werr != nil && !neg {
		ts.Fatalf("%v, %v; the screen:\n%s", err, werr, shown.String())
	}
}

const promptEnd = "]$ "

func typeLines(cmd *exec.Cmd, master *os.File, shown *screen, input string) error {
	seen := 0
	for _, line := range strings.Split(strings.TrimSuffix(input, "\n"), "\n") {
		deadline := time.Now().Add(2 * time.Minute)
		for !strings.Contains(shown.String()[seen:], promptEnd) {
			if time.Now().After(deadline) {
				return fmt.Errorf("no prompt to type %q at", line)
			}
			time.Sleep(2 * time.Millisecond)
		}
		seen = len(shown.String())
		if _, err := master.WriteString(line + "\r"); err != nil {
			return err
		}
		// The line editor draws the prompt again with each letter; the next
		// prompt is the one after the line has been sent.
		for !strings.Contains(shown.String()[seen:], "\n") {
			if time.Now().After(deadline) {
				return fmt.Errorf("%q is not taken", line)
			}
			time.Sleep(2 * time.Millisecond)
		}
		seen += strings.Index(shown.String()[seen:], "\n")
	}
	return nil
}
