package record

import (
	"context"
	"image"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/host/hosttest"
	"minimega/pkg/vnc"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(standIn); text != "" {
		if err := runStandIn(text); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// machine is a screen with a proxy before it, and what was done to it.
type machine struct {
	Target
	Screen *vnc.Screen
	Socket string

	mu     sync.Mutex // guards the fields below
	inputs []vnc.Input
	times  []time.Time
}

func (m *machine) record(in vnc.Input) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inputs, m.times = append(m.inputs, in), append(m.times, time.Now())
}

func (m *machine) seen() ([]vnc.Input, []time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]vnc.Input(nil), m.inputs...), append([]time.Time(nil), m.times...)
}

func newMachine(t *testing.T, name string, w, h int) *machine {
	t.Helper()
	screen, err := vnc.NewScreen(w, h)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Screen: screen, Target: Target{ID: len(name), Name: name, Namespace: "ns"}}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "vnc"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = vnc.Serve(ctx, conn, screen, name, m.record) })
		}
	})
	t.Cleanup(func() { cancel(); _ = ln.Close(); wg.Wait() })
	m.Socket = ln.Addr().String()
	m.Proxy = newProxy(t, m.Socket)
	return m
}

func newProxy(t *testing.T, socket string) *vnc.Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := vnc.NewProxy(ln, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}, quiet())
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// newQEMU starts a machine without disks: firmware, then its boot prompt.
func newQEMU(t *testing.T, args ...string) Target {
	t.Helper()
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	socket := filepath.Join(dir, "vnc")
	args = append([]string{"-display", "none", "-vnc", "unix:" + socket, "-M", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-vga", "std"}, args...)
	cmd := exec.Command("qemu-system-x86_64", args...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = log.Close() })
	eventually(t, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return Target{ID: 77, Name: "qemu", Namespace: "ns", Proxy: newProxy(t, socket)}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("did not happen within 90 s")
		case <-tick.C:
		}
	}
}

// pause lets a recording run for a while.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

func newManager(t *testing.T) *Manager {
	t.Helper()
	m := New(quiet())
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// recorded waits until the recording that runs has what the screen shows now.
func (m *machine) recorded(t *testing.T, mgr *Manager) {
	t.Helper()
	before := mgr.List()[0].Items
	eventually(t, func() bool {
		m.Screen.Draw(func(*image.RGBA) {})
		return mgr.List()[0].Items >= before+2 // the first may have been on its way
	})
}

// remains checks how long a playback goes on, but for the time that the test takes.
func remains(t *testing.T, m *Manager, want time.Duration) {
	t.Helper()
	l := m.List()
	if len(l) != 1 {
		t.Fatalf("list %+v", l)
	}
	text, ok := strings.CutSuffix(l[0].Time, " remaining")
	d, err := time.ParseDuration(text)
	if !ok || err != nil || d > want || d < want-10*time.Minute || d.String() != text {
		t.Errorf("list %+v, want %v", l, want)
	}
}

// client connects to the proxy's port, as people do.
func client(t *testing.T, p *vnc.Proxy) *vnc.Client {
	t.Helper()
	c, err := vnc.Dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.Addr().String())
	}, vnc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// pictures counts the updates that can be read from an fb file by now.
func pictures(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		return 0
	}
	for frame, err := range r.All() {
		if err != nil {
			break
		}
		if frame.Update.Rects > 0 {
			n++
		}
	}
	return n
}

// decode reads a whole fb file, which must be complete, and returns the number
// of updates, the time of the last mark and the last picture.
func decode(t *testing.T, path string) (updates int, end time.Duration, last *image.RGBA) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for frame, err := range r.All() {
		if err != nil {
			t.Fatalf("after %d updates, %v: %v", updates, end, err)
		}
		if frame.Update.Rects > 0 {
			updates++
		}
		end, last = frame.Offset, frame.Image
	}
	st, _ := f.Stat()
	t.Logf("%d updates in %v, %d bytes", updates, end, st.Size())
	return updates, end, last
}
