package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/host"
	"minimega/internal/host/hosttest"
	"minimega/internal/host/stage"
)

// keep starts a process that has a room and does nothing.
func keep(t *testing.T, room int) *keeper {
	t.Helper()
	p := stage.Program{Room: room}
	p.Add(stage.Call{Name: "wait", Nr: unix.SYS_PPOLL})
	image, err := p.Open(imageName)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	pid, fd, err := host.StartChild(host.ProcSpec{Path: fmt.Sprintf("/proc/self/fd/%d", image.Fd()), Dir: "/", Files: []*os.File{image}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := unix.Wait4(pid, nil, 0, nil)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { _ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) }) // may have been killed
	return &keeper{pid: pid, fd: fd, child: true, done: make(chan struct{})}
}

// screenOf is that of a daemon that started the keeper, or of a later one.
func screenOf(t *testing.T, k *keeper, child bool) *screen {
	t.Helper()
	s, err := newScreen(&keeper{pid: k.pid, fd: k.fd, child: child, done: k.done}, &shortage{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A later daemon shows what the one before did, whatever was shown meanwhile.
func TestScreen(t *testing.T) {
	k := keep(t, roomSize)
	if s := screenOf(t, k, false); s.place != nil || s.lost {
		t.Errorf("an empty room shows %q", s.text())
	}
	s := screenOf(t, k, true)
	var all []byte
	for i := range 300 {
		piece := fmt.Appendf(nil, "%d %s\r\n", i, strings.Repeat("x", rand.N(100)))
		if i%100 == 50 {
			piece = bytes.Repeat(piece, 1+pieceSize/len(piece))
		}
		all = append(all, piece...)
		s.add(piece)
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
		want := string(all[max(0, len(all)-scrollback):])
		if got := string(s.text()); got != want {
			t.Fatalf("after piece %d the screen is\n%q, want\n%q", i, got, want)
		}
		if i%7 > 0 {
			continue
		}
		s = screenOf(t, k, false)
		if got := string(s.text()); got != want {
			t.Fatalf("after piece %d the next daemon has\n%q, want\n%q", i, got, want)
		}
	}
}

// What is half written does not count.
func TestScreenTorn(t *testing.T) {
	var room [roomSize]byte
	s := &screen{mem: -1}
	old := ""
	for _, text := range []string{"one", strings.Repeat("two", 500), "three", strings.Repeat("4", scrollback), "five"} {
		s.place = nil
		s.add([]byte(text))
		at := s.seal()
		for n := range len(s.place) + 1 {
			torn := room
			copy(torn[at:], s.place[:n])
			var after screen
			after.read(torn[:])
			if got := string(after.text()); got != old && (got != text || n < len(s.place)-1) {
				t.Fatalf("after %d of %d bytes: %q instead of %q", n, len(s.place), got, old)
			}
		}
		copy(room[at:], s.place)
		old = text
	}
	for _, size := range []uint32{scrollback + 1, placeSize, 1 << 31, 1<<32 - 1} {
		copy(room[:], s.place)
		binary.NativeEndian.PutUint32(room[4:], size)
		if end := placeHead + size; end <= roomSize {
			binary.NativeEndian.PutUint32(room[:], crc32.Checksum(room[4:end], castagnoli))
		}
		var after screen
		if after.read(room[:placeSize]); after.place != nil {
			t.Errorf("%d bytes are taken for a screen", len(after.text()))
		}
	}
}

// A keeper without a room is one of an earlier version, one that has ended has
// none: the console works, and says so at most once.
func TestScreenNowhere(t *testing.T) {
	k := keep(t, 0)
	if s := screenOf(t, k, false); s.place != nil || !s.lost || s.mem >= 0 {
		t.Errorf("%+v", s)
	}
	s := screenOf(t, k, true)
	s.add([]byte("x"))
	if err := s.save(); !errors.Is(err, unix.EIO) {
		t.Errorf("kept nowhere: %v", err)
	}
	if err := s.save(); err != nil || s.mem >= 0 {
		t.Errorf("once more: %v", err)
	}
	k = keep(t, roomSize)
	early, late, not := screenOf(t, k, true), screenOf(t, k, true), screenOf(t, k, true)
	early.add([]byte("x"))
	if err := early.save(); err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(k.fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}, -1); err != nil {
		t.Fatal(err)
	}
	late.add([]byte("x"))
	if err := errors.Join(early.save(), late.save()); err != nil || !early.lost || !late.lost {
		t.Errorf("after the end: %v", err)
	}
	close(k.done)
	not.add([]byte("x"))
	if err := not.save(); err != nil || !not.lost || not.mem >= 0 {
		t.Errorf("after its pid has become free: %v, %+v", err, not)
	}
}

// Without descriptors it is kept later.
func TestScreenShortage(t *testing.T) {
	k := keep(t, roomSize)
	s := screenOf(t, k, true)
	s.add([]byte("one "))
	more := noDescriptors(t)
	err := s.save()
	more()
	if err != nil || s.lack.tries != 1 {
		t.Errorf("%d tries: %v", s.lack.tries, err)
	}
	s.add([]byte("two"))
	if err := s.save(); err != nil || s.lack.tries != 0 {
		t.Errorf("%d tries: %v", s.lack.tries, err)
	}
	if got := string(screenOf(t, k, false).text()); got != "one two" {
		t.Errorf("the next daemon has %q", got)
	}
}

// noDescriptors keeps this process from opening anything, until more is called.
func noDescriptors(t *testing.T) (more func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Fatal(err)
		}
	}
}

// standIn in the environment makes the test program a daemon that does nothing
// but fill the screen of a keeper, until it is killed.
const standIn = "CONTAINER_TEST_SCREEN"

type screenOrder struct{ PID int }

// numbered is a screen that can be told from all others.
func numbered(n uint64) string {
	return fmt.Sprint(n, " ", strings.Repeat(string('a'+rune(n%26)), int(n*37%1900)))
}

func runStandIn(text string) error {
	var o screenOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(o.PID, 0)
	if err != nil {
		return err
	}
	s, err := newScreen(&keeper{pid: o.PID, fd: fd, done: make(chan struct{})}, &shortage{log: slog.Default()})
	for i := 0; err == nil; i++ {
		if i == 2 {
			fmt.Println("going")
		}
		s.place = nil
		s.add([]byte(numbered(s.number + 1)))
		err = s.save()
	}
	return err
}

// A daemon that is killed while it writes leaves one screen, whole, and never
// an older one than the daemon before.
func TestScreenAfterKill(t *testing.T) {
	k := keep(t, roomSize)
	last := uint64(0)
	for range 20 {
		daemon := hosttest.Again(t, standIn, screenOrder{k.pid})
		if _, err := io.ReadFull(daemon.Out, make([]byte, len("going\n"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(5 * time.Millisecond))
		daemon.Kill()
		s := screenOf(t, k, false)
		if got := string(s.text()); got != numbered(s.number) || s.number <= last {
			t.Fatalf("after number %d there is number %d, %q", last, s.number, got)
		}
		last = s.number
	}
	t.Logf("%d screens", last)
}

func FuzzScreen(f *testing.F) {
	s := &screen{mem: -1}
	s.add([]byte("shown"))
	room := make([]byte, roomSize)
	copy(room[s.seal():], s.place)
	f.Add(room)
	f.Add(s.place)
	f.Fuzz(func(t *testing.T, room []byte) {
		var s screen
		s.read(room)
		if len(s.text()) > scrollback {
			t.Fatalf("a screen of %d bytes", len(s.text()))
		}
		s.add(room)
		s.seal()
		if len(s.place) > placeSize {
			t.Fatalf("a place of %d bytes", len(s.place))
		}
	})
}

// nextEngine is that of the next daemon.
func (b *bench) nextEngine() *Engine {
	e := New(Options{Base: b.base}, b.engine.log)
	b.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return e
}

// The next daemon's console begins with what that of the last one showed, and
// what the container printed while there was none.
func TestAdoptScreen(t *testing.T) {
	b := newBench(t)
	c := b.config("say")
	c.Fifos = 1
	s := b.spec(c)
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	m := first.(*Machine)
	t.Cleanup(func() { _ = b.engine.Clean(context.Background(), s.Dir) }) // where the test ends early
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := ""
	say := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.Dir, "fifo0"), []byte(text), 0); err != nil {
			t.Fatal(err)
		}
		all += strings.ReplaceAll(text, "\n", "\r\n")
	}
	want := func() string { return all[max(0, len(all)-scrollback):] }
	say("short\n")
	until(t, "a line", func() bool { return m.shown() == want() })
	for round := range 3 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		say(fmt.Sprintf("nobody looks at line %d\n", round))
		again, err := b.nextEngine().Adopt(t.Context(), s, m.keeper.pid)
		if err != nil {
			t.Fatal(err)
		}
		m = again.(*Machine)
		until(t, "what was shown", func() bool { return m.shown() == want() })
		client := dialConsole(t, m, "unix")
		got := make([]byte, len(want()))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != want() {
			t.Fatalf("round %d: the console begins with\n%q, want\n%q, %v", round, got, want(), err)
		}
		for i := range 50 {
			say(fmt.Sprintf("line %d of round %d is as long as that\n", i, round))
		}
		until(t, "more lines", func() bool { return m.shown() == want() })
	}
	if err := errors.Join(m.Kill(t.Context()), m.Close()); err != nil {
		t.Error(err)
	}
}

// A container whose keeper is of a version without a room is taken over, and
// its console begins empty.
func TestAdoptWithoutRoom(t *testing.T) {
	b := newBench(t)
	b.engine.edit = func(p *program) { p.Room = 0 }
	s := b.spec(b.config("echo"))
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	m := first.(*Machine)
	t.Cleanup(func() { _ = b.engine.Clean(context.Background(), s.Dir) }) // where the test ends early
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "ready", func() bool { return strings.Contains(m.shown(), "ready\r\n") })
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := b.nextEngine().Adopt(t.Context(), s, m.keeper.pid)
	if err != nil {
		t.Fatal(err)
	}
	b.endAfter(again)
	m = again.(*Machine)
	fmt.Fprintln(dialConsole(t, m, "unix"), "hello")
	until(t, "the echo", func() bool { return strings.HasPrefix(m.shown(), "hello\r\n") })
}
