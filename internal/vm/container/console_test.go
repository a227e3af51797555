package container

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onPipe serves a console whose terminal is a pipe. What is said is to be read
// after stop.
func onPipe(t *testing.T) (c *console, p *poller, terminal *os.File, said *bytes.Buffer, stop func()) {
	t.Helper()
	said = &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(said, nil))
	p, err := newPoller(log)
	if err != nil {
		t.Fatal(err)
	}
	master, terminal, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{mem: -1, lost: true}
	c, err = openConsole(p, master, s, filepath.Join(t.TempDir(), "console"), "127.0.0.1", log)
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		t.Helper()
		terminal.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop) // a second time does nothing
	return c, p, terminal, said, stop
}

func (c *console) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.clients)
}

func dialPath(t *testing.T, c *console) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", c.listeners[0].path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// While there are no descriptors a console takes no clients, which is said once
// and not with each try; afterwards it takes those who have waited.
func TestConsoleShortage(t *testing.T) {
	c, p, terminal, said, stop := onPipe(t)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	client := os.NewFile(uintptr(sock), "client")
	defer client.Close()
	more := noDescriptors(t)
	err = unix.Connect(sock, &unix.SockaddrUnix{Name: c.listeners[0].path})
	for tries := 0; err == nil && tries < 4; time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		tries = p.lack.tries
		p.mu.Unlock()
	}
	more()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the client", func() bool { return c.count() == 1 })
	if _, err := io.WriteString(terminal, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "hello" {
		t.Errorf("%q %v", got, err)
	}
	stop()
	if text := said.String(); strings.Count(text, "\n") != 2 || strings.Count(text, "too many open files") != 1 || !strings.Contains(text, "do not wait any more") {
		t.Errorf("it is said:\n%s", text)
	}
}

// A shortage that comes and goes is not said more than once a minute, one that
// stays is.
func TestShortage(t *testing.T) {
	var said bytes.Buffer
	s := shortage{log: slog.New(slog.NewTextHandler(&said, nil))}
	lines := func(want int) {
		t.Helper()
		if got := strings.Count(said.String(), "\n"); got != want {
			t.Errorf("%d lines, want %d:\n%s", got, want, said.String())
		}
	}
	s.note(nil)
	s.note(unix.ECONNABORTED)
	lines(0)
	for range 100 {
		s.note(unix.EMFILE)
		s.note(unix.EAGAIN)
		s.note(unix.ENOMEM)
	}
	lines(1)
	s.note(nil)
	s.note(nil)
	lines(2)
	for range 100 {
		s.note(unix.EMFILE)
		s.note(nil)
	}
	s.note(unix.EMFILE)
	lines(2)
	s.next = s.next.Add(-shortagePause)
	s.note(unix.EMFILE)
	lines(3)
	s.note(nil)
	lines(4)
	if n := strings.Count(said.String(), "tries=200"); n != 1 {
		t.Errorf("the number of tries is wrong:\n%s", said.String())
	}
}

// Only so many clients are served at once; who goes makes room for another.
func TestConsoleMost(t *testing.T) {
	c, _, terminal, _, _ := onPipe(t)
	var clients []net.Conn
	for len(clients) < consoleMost {
		clients = append(clients, dialPath(t, c))
		until(t, "a client", func() bool { return c.count() == len(clients) })
	}
	if n, err := dialPath(t, c).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one too many gets %d bytes, %v", n, err)
	}
	clients[0].Close()
	until(t, "the end of a client", func() bool { return c.count() == consoleMost-1 })
	clients[0] = dialPath(t, c)
	until(t, "another client", func() bool { return c.count() == consoleMost })
	if _, err := io.WriteString(terminal, "x"); err != nil {
		t.Fatal(err)
	}
	for i, conn := range clients {
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("client %d: %v", i, err)
		}
	}
}
