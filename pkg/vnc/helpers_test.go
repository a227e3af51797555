package vnc

import (
	"context"
	"image"
	"image/color"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// testServer serves a screen on loopback and remembers what clients do.
type testServer struct {
	Screen *Screen
	addr   string

	mu     sync.Mutex // guards the fields below
	inputs []Input
	times  []time.Time
}

func newTestServer(t *testing.T, w, h int) *testServer {
	t.Helper()
	screen, err := NewScreen(w, h)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{Screen: screen, addr: ln.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = Serve(ctx, conn, screen, "test", s.record) })
		}
	})
	t.Cleanup(func() { cancel(); _ = ln.Close(); wg.Wait() })
	return s
}

func (s *testServer) record(in Input) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inputs = append(s.inputs, in)
	s.times = append(s.times, time.Now())
}

func (s *testServer) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.addr)
}

// wait returns the inputs once there are n of them.
func (s *testServer) wait(t *testing.T, n int) []Input {
	t.Helper()
	var got []Input
	eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = append([]Input(nil), s.inputs...)
		return len(got) >= n
	})
	if len(got) != n {
		t.Fatalf("server saw %d inputs, want %d: %v", len(got), n, got)
	}
	return got
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

func newTestProxy(t *testing.T, s *testServer, opts ...ProxyOption) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := NewProxy(ln, s.dial, quiet(), opts...)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// viaProxy dials the proxy's own port.
func viaProxy(p *Proxy) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", p.Addr().String())
	}
}

func dialTest(t *testing.T, dial func(context.Context) (net.Conn, error), opts Options) *Client {
	t.Helper()
	c, err := Dial(t.Context(), dial, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// noise fills m with random opaque pixels.
func noise(m *image.RGBA) {
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			v := rand.Uint32()
			m.SetRGBA(x, y, color.RGBA{uint8(v), uint8(v >> 8), uint8(v >> 16), 255})
		}
	}
}
