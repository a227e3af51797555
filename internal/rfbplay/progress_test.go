package rfbplay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var percent = regexp.MustCompile(`rfbplay: +(\d+)%, at [0-9.ms]+, \d+ times real time`)

// talkative has every frame told of.
func talkative(c *Config) { c.every = time.Nanosecond }

// Work that takes a while says how far it is, up to all of it.
func TestProgress(t *testing.T) {
	_, said, err := run(t, sample(t), filepath.Join(t.TempDir(), "x.gif"), talkative)
	if err != nil {
		t.Fatal(err)
	}
	checkProgress(t, strings.Split(strings.TrimSuffix(said, "\n"), "\n"))
	if strings.Contains(said, "\r") {
		t.Errorf("as on a terminal: %q", said)
	}
}

func checkProgress(t *testing.T, lines []string) {
	t.Helper()
	last := 0
	for _, line := range lines {
		m := percent.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%q in %q", line, lines)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n < last || n > 100 {
			t.Errorf("%d %% after %d %%", n, last)
		}
		last = n
	}
	if len(lines) < 3 || last != 100 {
		t.Errorf("it ends at %d %%: %q", last, lines)
	}
}

// On a terminal it is one line, which changes.
func TestProgressOnTerminal(t *testing.T) {
	master, slave := terminal(t)
	c := Default()
	c.Input, c.Output, c.every = sample(t), filepath.Join(t.TempDir(), "x.gif"), time.Nanosecond
	read := make(chan string)
	go func() {
		text, _ := io.ReadAll(master) // EIO when the other end is closed
		read <- string(text)
	}()
	err := Run(t.Context(), c, io.Discard, slave)
	if err = errors.Join(err, slave.Close()); err != nil {
		t.Fatal(err)
	}
	said := <-read
	line, ok := strings.CutSuffix(said, "\r\n")
	if !ok || strings.Contains(line, "\n") {
		t.Errorf("not one line: %q", said)
	}
	checkProgress(t, strings.Split(strings.TrimPrefix(line, "\r"), "\r"))
}

// terminal makes a pair of a pseudo-terminal, see pts(4).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if failed := conn.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// Work that fails does not claim to be done, and quick work says nothing.
func TestProgressOfOthers(t *testing.T) {
	m := newMaker(t, 10, 10)
	_, said, err := run(t, m.done(time.Second), filepath.Join(t.TempDir(), "x.mp4"), talkative, withFake(t, "fail"))
	if err == nil || strings.Contains(said, "100%") {
		t.Errorf("failed work: %v, %q", err, said)
	}
	if _, said, err = run(t, sample(t), filepath.Join(t.TempDir(), "x.gif")); err != nil || said != "" {
		t.Errorf("quick work: %v, %q", err, said)
	}
}
