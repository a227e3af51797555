// Package ptytest runs a program on a pseudo-terminal, for tests of what a
// person at a keyboard gets.
package ptytest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long Expect and Wait wait.
const patience = 90 * time.Second

// Rows is the height of the terminal; it is 200 columns wide, so that nothing
// that a test looks for is wrapped.
const Rows = 24

// Terminal is a terminal with a program on it.
type Terminal struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	exited chan error
	more   chan struct{}

	mu   sync.Mutex // guards the fields below
	seen string     // all that was printed
	read int        // how much of it Expect has consumed
}

// Start starts cmd on a terminal of its own, and ends both with the test.
func Start(t testing.TB, cmd *exec.Cmd) *Terminal {
	t.Helper()
	master, slave, err := open()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = append(cmd.Environ(), "TERM=xterm")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close() // the program has its own
	p := &Terminal{t: t, master: master, cmd: cmd, exited: make(chan error, 1), more: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { p.exited <- cmd.Wait() })
	wg.Go(p.collect)
	t.Cleanup(func() {
		cmd.Process.Kill() // has ended in most tests
		master.Close()
		wg.Wait()
	})
	return p
}

// open makes a pseudo-terminal (pty(7), ioctl_tty(2)).
func open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: Rows, Col: 200}); err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

// collect gathers the output until the terminal is closed.
func (p *Terminal) collect() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.seen += string(buf[:n])
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Send types text.
func (p *Terminal) Send(text string) {
	p.t.Helper()
	if _, err := p.master.WriteString(text); err != nil {
		p.t.Fatal(err)
	}
}

// Expect waits until text was printed since the last Expect.
func (p *Terminal) Expect(text string) {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !p.take(text) {
		select {
		case <-p.more:
		case <-limit.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("no %q in %q", text, p.seen[p.read:])
		}
	}
}

func (p *Terminal) take(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := strings.Index(p.seen[p.read:], text)
	if i < 0 {
		return false
	}
	p.read += i + len(text)
	return true
}

// Output is all that was printed.
func (p *Terminal) Output() string { p.mu.Lock(); defer p.mu.Unlock(); return p.seen }

// Wait waits for the program's end and returns its exit status.
func (p *Terminal) Wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("the program does not end; it printed %q", p.Output())
		return -1
	}
}

// Echoes reports whether the terminal shows what is typed and waits for whole
// lines, as a shell leaves it.
func (p *Terminal) Echoes() bool {
	p.t.Helper()
	mode, err := unix.IoctlGetTermios(int(p.master.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0 && mode.Lflag&unix.ICANON != 0
}
