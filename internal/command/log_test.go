package command

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"minimega/internal/minilog"
)

func logClient(t *testing.T) (*client, *minilog.Log) {
	l, err := minilog.New(minilog.DefaultOptions(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return newClient(t, Log(l), Flags()), l
}

func TestLogLevel(t *testing.T) {
	c, l := logClient(t)
	c.expect("log level", "h1: error")
	for _, name := range []string{"debug", "info", "warn", "error", "fatal"} {
		c.expect("log level "+name, "")
		c.expect("log level", "h1: "+name)
	}
	c.expect("clear log level", "")
	if minilog.LevelName(l.Level()) != "error" {
		t.Errorf("level %v", l.Level())
	}
}

func TestLogStderr(t *testing.T) {
	c, _ := logClient(t)
	c.expect("log stderr", "h1: true")
	c.expect("log stderr false", "")
	c.expect("log stderr", "h1: false")
	c.expect("log stderr true", "")
	c.expect("clear log stderr", "")
	c.expect("log stderr", "h1: false")
}

func TestLogFile(t *testing.T) {
	c, l := logClient(t)
	path := filepath.Join(t.TempDir(), "d", "log")
	c.expect("log file", "")
	c.expect("log file "+path, "")
	c.expect("log file", "h1: "+path)
	l.Logger().Error("hello")
	c.expect("clear log file", "")
	c.expect("log file", "")
	l.Logger().Error("unheard")
	if b, err := os.ReadFile(path); !regexp.MustCompile(`^\S+ \S+ ERROR log_test.go:\d+: hello\n$`).Match(b) {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLogRing(t *testing.T) {
	c, l := logClient(t)
	c.refuse("log ring", "cannot dump log ring, not enabled")
	c.refuse("log ring x", `strconv.Atoi: parsing "x": invalid syntax`)
	c.refuse("log ring 0", "invalid ring size 0 (1 to 1048576)")
	c.expect("log ring 5", "")
	c.expect("log ring", "")
	l.Logger().Error("one")
	l.Logger().Error("two")
	if got, _ := c.run("log ring"); !regexp.MustCompile(`^h1: \S+ \S+ ERROR \S+ one\n\S+ \S+ ERROR \S+ two$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
	c.expect("clear log ring", "")
	c.refuse("log ring", "cannot dump log ring, not enabled")
}

func TestLogFilterAndClear(t *testing.T) {
	c, l := logClient(t)
	c.expect("log filter", "")
	c.expect("log filter a", "")
	c.expect("log filter b", "")
	c.expect("log filter", "h1: [a b]")
	c.expect("clear log filter", "")
	c.expect("log filter", "")
	c.expect("log filter x", "")
	c.expect("log ring 3", "")
	c.expect("log level debug", "")
	c.expect("clear log", "")
	if _, ring := l.Dump(); ring || len(l.Filters()) != 0 || l.HasStderr() || minilog.LevelName(l.Level()) != "error" {
		t.Error("something is left")
	}
}

func TestLogSyslog(t *testing.T) {
	c, l := logClient(t)
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c.expect("log syslog remote udp "+s.LocalAddr().String(), "")
	l.Logger().Error("over there")
	b := make([]byte, 2000)
	n, _, err := s.ReadFrom(b)
	if err != nil || !regexp.MustCompile(`^<11>.* minimega\[\d+\]: .*over there\n$`).Match(b[:n]) {
		t.Errorf("%q, %v", b[:n], err)
	}
	c.expect("clear log syslog", "")
	if _, bad := c.run("log syslog remote tcp 127.0.0.1:1"); bad == "" {
		t.Error("connected to nobody")
	}
}
