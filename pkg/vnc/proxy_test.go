package vnc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// watch collects a proxy's events.
type watch struct {
	mu     sync.Mutex
	events []Event
}

func (w *watch) add(e Event) { w.mu.Lock(); w.events = append(w.events, e); w.mu.Unlock() }
func (w *watch) inputs() []Input {
	w.mu.Lock()
	defer w.mu.Unlock()
	var in []Input
	for _, e := range w.events {
		in = append(in, e.Input)
	}
	return in
}

func TestProxyShowsAndTells(t *testing.T) {
	s := newTestServer(t, 320, 200)
	var want []byte
	s.Screen.Draw(func(m *image.RGBA) { noise(m); want = bytes.Clone(m.Pix) })
	p := newTestProxy(t, s)
	if p.Port() == 0 {
		t.Error("no port")
	}
	for _, opts := range []Options{{}, {Version33: true}, {Exclusive: true}} {
		var w watch
		cancel := p.Subscribe(w.add)
		c := dialTest(t, viaProxy(p), opts)
		got, err := c.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Pix, want) {
			t.Errorf("%+v: screen differs", opts)
		}
		sent := []Input{KeyEvent{true, 0xffe1}, PointerEvent{1, 2, 3}, KeyEvent{false, 0xffe1}}
		for _, in := range sent {
			if k, ok := in.(KeyEvent); ok {
				err = c.Key(k)
			} else {
				err = c.Pointer(in.(PointerEvent))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, func() bool { return len(w.inputs()) == len(sent) })
		if seen := w.inputs(); fmt.Sprint(seen) != fmt.Sprint(sent) {
			t.Errorf("%+v: seen %v, want %v", opts, seen, sent)
		}
		cancel()
	}
	s.wait(t, 9)
}

func TestProxyTypesCutText(t *testing.T) {
	s := newTestServer(t, 10, 10)
	p := newTestProxy(t, s)
	c := dialTest(t, viaProxy(p), Options{})
	if err := c.Cut(CutText{Text: "a\u00fcB"}); err != nil {
		t.Fatal(err)
	}
	want := []Input{KeyEvent{true, 'a'}, KeyEvent{false, 'a'}, KeyEvent{true, keyShiftL},
		KeyEvent{true, 'B'}, KeyEvent{false, 'B'}, KeyEvent{false, keyShiftL}}
	if got := s.wait(t, len(want)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("typed %v, want %v", got, want)
	}
}

func TestProxyTypesHugeCutText(t *testing.T) {
	s := newTestServer(t, 10, 10)
	p := newTestProxy(t, s)
	var w watch
	defer p.Subscribe(w.add)()
	c := dialTest(t, viaProxy(p), Options{})
	if err := c.Cut(CutText{Text: strings.Repeat("x", 3<<20)}); err != nil {
		t.Fatal(err)
	}
	if err := c.Pointer(PointerEvent{1, 7, 7}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { // the pointer is not held up by 256 KiB of typing
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, in := range s.inputs {
			if in == (PointerEvent{1, 7, 7}) {
				return true
			}
		}
		return false
	})
	if cut, ok := w.inputs()[0].(CutText); !ok || !cut.Truncated || len(cut.Text) != MaxCut {
		t.Errorf("first event is %T", w.inputs()[0])
	}
}

func TestProxyForwardsCutText(t *testing.T) {
	s := newTestServer(t, 10, 10)
	p := newTestProxy(t, s, TypeCutText(false))
	c := dialTest(t, viaProxy(p), Options{})
	text := CutText{Text: "B"}
	long := CutText{Text: strings.Repeat("y", MaxCut), Truncated: true}
	for _, cut := range []CutText{text, {Text: strings.Repeat("y", MaxCut+5)}} {
		if err := c.Cut(cut); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.wait(t, 2); got[0] != text || got[1] != long {
		t.Errorf("server got %d and %d bytes", len(got[0].(CutText).Text), len(got[1].(CutText).Text))
	}
}

func TestProxyUnknownMessagePassesOn(t *testing.T) {
	p, peer := rawProxy(t)
	var w watch
	defer p.Subscribe(w.add)()
	client := rawClient(t, p)
	server := <-peer
	shakeRaw(t, client, server)
	tail := append([]byte{0x77}, "whatever comes, byte for byte"...)
	if _, err := client.Write(append(KeyEvent{true, 'q'}.Append(nil), tail...)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8+len(tail))
	readFull(t, server, got)
	if !bytes.Equal(got[8:], tail) {
		t.Errorf("server got %q", got)
	}
	eventually(t, func() bool { return len(w.inputs()) == 2 })
	if in := w.inputs(); in[0] != (KeyEvent{true, 'q'}) || !strings.Contains(in[1].(Opaque).Reason, "119") {
		t.Errorf("events %v", in)
	}
}

func TestProxyKeepsClientsReadable(t *testing.T) {
	p, peer := rawProxy(t)
	client := rawClient(t, p)
	server := <-peer
	shakeRaw(t, client, server)
	encs := []Encoding{EncRaw, encExtendedMouse, EncDesktopSize, encExtendedClipboard}
	if _, err := client.Write(appendSetEncodings(nil, encs)); err != nil {
		t.Fatal(err)
	}
	want := appendSetEncodings(nil, []Encoding{EncRaw, EncDesktopSize})
	got := make([]byte, len(want))
	readFull(t, server, got)
	if !bytes.Equal(got, want) {
		t.Errorf("server got %x, want %x", got, want)
	}
}

func TestProxySlowSubscriberLosesOnlyEvents(t *testing.T) {
	s := newTestServer(t, 10, 10)
	p := newTestProxy(t, s)
	block := make(chan struct{})
	var seen, dropped atomic.Uint64
	cancel := p.Subscribe(func(e Event) { <-block; seen.Add(1); dropped.Store(e.Dropped) })
	c := dialTest(t, viaProxy(p), Options{})
	const n = queueLen + 500
	for i := range n {
		if err := c.Pointer(PointerEvent{0, uint16(i), 0}); err != nil {
			t.Fatal(err)
		}
	}
	s.wait(t, n)
	close(block)
	eventually(t, func() bool { return seen.Load() >= queueLen })
	if err := c.Key(KeyEvent{true, 'z'}); err != nil {
		t.Fatal(err)
	}
	s.wait(t, n+1)
	cancel()
	if seen.Load()+dropped.Load() != n+1 || dropped.Load() == 0 {
		t.Errorf("seen %d, dropped %d of %d", seen.Load(), dropped.Load(), n+1)
	}
}

// TestProxySilentServer: a client is told, by the end of its connection, that
// the machine's screen does not answer.
func TestProxySilentServer(t *testing.T) {
	p, peer := rawProxy(t, func(p *Proxy) { p.patience = 50 * time.Millisecond })
	client := rawClient(t, p)
	defer func() { _ = (<-peer).Close() }()
	if err := client.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("client sees %v", err)
	}
}

func TestProxyCloseEndsAll(t *testing.T) {
	s := newTestServer(t, 10, 10)
	p := newTestProxy(t, s)
	clients := make([]*Client, 20)
	for i := range clients {
		clients[i] = dialTest(t, viaProxy(p), Options{})
	}
	start := time.Now()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("close took %v", d)
	}
	for _, c := range clients {
		if _, err := c.Next(); err == nil {
			t.Error("a client is still connected")
		}
	}
	p.Subscribe(func(Event) {})() // returns at once
}

// rawProxy is a proxy in front of a server that the test plays by hand.
func rawProxy(t *testing.T, opts ...ProxyOption) (*Proxy, <-chan net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := make(chan net.Conn, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := ln.Accept(); err == nil {
			peer <- c
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return newTestProxy(t, &testServer{addr: ln.Addr().String()}, opts...), peer
}

func rawClient(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := viaProxy(p)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// shakeRaw plays an RFB 3.3 handshake; the client does not wait for answers,
// and does not want to share.
func shakeRaw(t *testing.T, client, server net.Conn) {
	t.Helper()
	t.Cleanup(func() { _ = server.Close() })
	if _, err := client.Write(append([]byte(version33), 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write(binary.BigEndian.AppendUint32([]byte(version38), secNone)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, banner+1)
	readFull(t, server, got)
	if got[banner] != 1 {
		t.Error("the proxy let a client take the screen for itself")
	}
}

func readFull(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(b); {
		got, err := c.Read(b[n:])
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", n, len(b), err)
		}
		n += got
	}
}
