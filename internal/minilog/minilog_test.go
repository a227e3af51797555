package minilog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newLog(t *testing.T, o Options, w io.Writer) *Log {
	t.Helper()
	l, err := New(o, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestLineFormat(t *testing.T) {
	var b syncBuffer
	l := newLog(t, Options{Level: slog.LevelDebug, Verbose: true}, &b)
	log := l.Logger().With("vm", "a b").WithGroup("g")
	log.Warn("disk\x1b[2J full\n2026/01/01 00:00:00 INFO forged", "n", 3, slog.Group("h", "e", errors.New("x=y")), "empty", "")
	log.Log(t.Context(), LevelFatal, "end", "raw", "\x9b\xff")
	l.Close()
	lines := strings.Split(b.String(), "\n")
	want := regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d WARN minilog_test\.go:\d+: disk\\x1b\[2J full$`)
	if len(lines) != 4 || !want.MatchString(lines[0]) {
		t.Fatalf("got %q", lines)
	}
	if w := "\t2026/01/01 00:00:00 INFO forged vm=\"a b\" g.n=3 g.h.e=\"x=y\" g.empty=\"\""; lines[1] != w {
		t.Errorf("got  %q\nwant %q", lines[1], w)
	}
	if !strings.Contains(lines[2], ` FATAL minilog_test.go:`) || !strings.HasSuffix(lines[2], "end vm=\"a b\" g.raw=\uFFFD") {
		t.Errorf("got %q", lines[2])
	}
}

func TestLevels(t *testing.T) {
	var b syncBuffer
	l := newLog(t, Options{Level: slog.LevelError, Verbose: true}, &b)
	log := l.Logger()
	log.Info("quiet")
	l.SetLevel(slog.LevelInfo)
	log.Info("loud")
	l.ResetLevel()
	log.Warn("quiet again")
	if LevelName(l.Level()) != "error" {
		t.Errorf("level %v", l.Level())
	}
	l.Close()
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") {
		t.Errorf("got %q", got)
	}
	for _, n := range []string{"debug", "info", "warn", "error", "fatal"} {
		if v, err := ParseLevel(n); err != nil || LevelName(v) != n {
			t.Errorf("%s: %v, %v", n, v, err)
		}
	}
}

func TestStderrCanGo(t *testing.T) {
	var b syncBuffer
	l := newLog(t, DefaultOptions(), &b)
	if !l.HasStderr() {
		t.Fatal("no stderr by default")
	}
	l.Logger().Error("one")
	l.SetStderr(false)
	l.Logger().Error("two")
	if l.HasStderr() || l.Logger().Enabled(t.Context(), LevelFatal) {
		t.Error("a log without targets is enabled")
	}
	l.SetStderr(true)
	l.Logger().Error("three")
	l.Close()
	if got := b.String(); !strings.Contains(got, "one") || strings.Contains(got, "two") || !strings.Contains(got, "three") {
		t.Errorf("got %q", got)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b", "log")
	l := newLog(t, Options{Level: slog.LevelInfo, File: path}, io.Discard)
	l.Logger().Info("one")
	if l.Path() != path {
		t.Errorf("path %q", l.Path())
	}
	if err := l.SetFile(dir); err == nil || l.Path() != path {
		t.Errorf("a directory was taken as file: %v, %q", err, l.Path())
	}
	if err := l.SetFile(filepath.Join(dir, "second")); err != nil {
		t.Fatal(err)
	}
	l.Logger().Info("two")
	if err := l.SetFile(path); err != nil {
		t.Fatal(err)
	}
	l.Logger().Info("three")
	if err := l.SetFile(""); err != nil || l.Path() != "" {
		t.Fatal(err, l.Path())
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.Count(string(b), "\n") != 2 || !strings.Contains(string(b), "one\n") || !strings.Contains(string(b), "three\n") {
		t.Errorf("%q, %v", b, err)
	}
	if s, err := os.Stat(path); err != nil || s.Mode().Perm()&^0o660 != 0 {
		t.Errorf("mode %v, %v", s.Mode(), err)
	}
}

func TestRing(t *testing.T) {
	l := newLog(t, Options{Level: slog.LevelInfo}, io.Discard)
	if _, ok := l.Dump(); ok {
		t.Error("a ring before it was made")
	}
	l.SetRing(3)
	for i := range 5 {
		l.Logger().Info(fmt.Sprint("n", i))
	}
	lines, ok := l.Dump()
	if !ok || len(lines) != 3 {
		t.Fatalf("%v %q", ok, lines)
	}
	for i, line := range lines {
		want := fmt.Sprintf(`^\d{4}/[1-9]\d?/[1-9]\d? \d+:\d+:\d+ INFO minilog_test.go:\d+: n%d$`, i+2)
		if !regexp.MustCompile(want).MatchString(line) {
			t.Errorf("got %q, want %s", line, want)
		}
	}
	l.SetRing(2)
	if lines, _ := l.Dump(); len(lines) != 0 {
		t.Errorf("a new ring has %q", lines)
	}
}

func TestFilters(t *testing.T) {
	l := newLog(t, Options{Level: slog.LevelInfo}, io.Discard)
	l.SetRing(10)
	l.AddFilter("noise")
	l.AddFilter("INFO minilog_test") // the prologue counts
	l.AddFilter("noise")
	l.Logger().Warn("noise here")
	l.Logger().Info("anything")
	l.Logger().Warn("signal")
	if lines, _ := l.Dump(); len(lines) != 1 || !strings.Contains(lines[0], "signal") {
		t.Errorf("got %q", lines)
	}
	if fmt.Sprint(l.Filters()) != "[noise INFO minilog_test]" {
		t.Errorf("filters %v", l.Filters())
	}
	l.ClearFilters()
	l.Logger().Info("anything")
	if lines, _ := l.Dump(); len(lines) != 2 {
		t.Errorf("got %q", lines)
	}
}

func TestColours(t *testing.T) {
	e := &entry{level: slog.LevelInfo, source: "a.go:1", text: "x"}
	if got, want := e.coloured(), "\x1b[33m"+e.prologue("2006/01/02 15:04:05")+"\x1b[32mx\x1b[0m"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A reader that never reads costs records, never time.
func TestStuckReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, Options{Level: slog.LevelInfo, Verbose: true}, w)
	start := time.Now()
	text := strings.Repeat("x", 1024)
	for range 4 * queueLength {
		l.Logger().Info(text)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("logging took %v", d)
	}
	got := make(chan string)
	go func() { b, _ := io.ReadAll(r); got <- string(b) }()
	l.Close()
	w.Close()
	if !strings.Contains(<-got, "records dropped") {
		t.Error("the loss is not mentioned")
	}
}

func TestSyslogUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := newLog(t, Options{Level: slog.LevelInfo}, io.Discard)
	if err := l.SetSyslog(t.Context(), "udp", c.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	l.Logger().Error("hello", "k", 1)
	b := make([]byte, 2048)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	n, _, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^<11>\d{4}-\d\d-\d\dT\S+ \S+ minimega\[\d+\]: minilog_test.go:\d+: hello k=1\n$`)
	if !want.Match(b[:n]) {
		t.Errorf("got %q", b[:n])
	}
}

// A server that hangs up is dialled again.
func TestSyslogTCPReconnects(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lines := make(chan string, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			lines <- string(b[:n])
			c.Close()
		}
	}()
	l := newLog(t, Options{Level: slog.LevelInfo}, io.Discard)
	if err := l.SetSyslog(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for seen := 0; seen < 3; {
		select {
		case <-tick.C:
			l.Logger().Error("again")
		case s := <-lines:
			if !strings.Contains(s, "again") {
				t.Fatalf("got %q", s)
			}
			seen++
		case <-limit:
			t.Fatal("no reconnect")
		}
	}
	l.ClearSyslog()
}

func TestSyslogRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	l := newLog(t, DefaultOptions(), io.Discard)
	if err := l.SetSyslog(t.Context(), "tcp", addr); err == nil {
		t.Error("connected to nobody")
	}
}

func TestFlags(t *testing.T) {
	fs := flag.NewFlagSet("x", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o := Flags(fs)
	if *o != (Options{Level: slog.LevelError, Verbose: true}) || fs.Lookup("level").DefValue != "error" {
		t.Errorf("defaults %+v, %q", *o, fs.Lookup("level").DefValue)
	}
	if err := fs.Parse([]string{"-level", "debug", "-v=false", "-logfile", "/x"}); err != nil {
		t.Fatal(err)
	}
	if *o != (Options{Level: slog.LevelDebug, File: "/x"}) {
		t.Errorf("parsed %+v", *o)
	}
	if err := fs.Parse([]string{"-level", "loud"}); err == nil {
		t.Error("level loud accepted")
	}
}

func TestConcurrent(t *testing.T) {
	l := newLog(t, Options{Level: slog.LevelDebug, Verbose: true, File: filepath.Join(t.TempDir(), "l")}, io.Discard)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				l.Logger().Info("x", "i", i)
				switch i % 50 {
				case 0:
					l.SetRing(10)
				case 10:
					l.SetStderr(i%20 == 10)
				case 20:
					l.Dump()
				}
			}
		})
	}
	wg.Wait()
}
