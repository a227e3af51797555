package meshage_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"minimega/pkg/meshage"
)

// on makes an address of a port of this host.
func on(n *meshage.Node) string { return fmt.Sprintf("127.0.0.1:%d", n.Status().Port) }

// Who may meet whom, over real TCP, and what the one who dials is told.
func TestAdmission(t *testing.T) {
	one, two := testKey(t), testKey(t)
	for _, c := range []struct {
		name string
		a, b meshage.Options
		want string // in the error, "" for none
	}{
		{"same key", meshage.Options{Key: one}, meshage.Options{Key: one}, ""},
		{"other key", meshage.Options{Key: one}, meshage.Options{Key: two}, "another mesh key"},
		{"none to key", meshage.Options{}, meshage.Options{Key: one}, "another mesh key"},
		{"key to none", meshage.Options{Key: one}, meshage.Options{}, "another mesh key"},
		{"open to key", meshage.Options{Open: true}, meshage.Options{Key: one}, "another mesh key"},
		{"none to none", meshage.Options{}, meshage.Options{}, ""},
		{"open to open", meshage.Options{Open: true}, meshage.Options{Open: true}, ""},
		{"context", meshage.Options{Key: one, Context: "x"}, meshage.Options{Key: one, Context: "y"}, "another context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.a.Name, c.b.Name = "a", "b"
			c.a.Transport, c.b.Transport = quiet{}, quiet{}
			a, b := start(t, c.a), start(t, c.b)
			err := a.Dial(t.Context(), on(b))
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				await(t, "b knows a", func() bool { return len(b.Members()) == 2 })
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("dial: %v", err)
			}
			if len(a.Members()) != 1 || len(b.Members()) != 1 {
				t.Errorf("%d and %d members", len(a.Members()), len(b.Members()))
			}
		})
	}
}

// quiet is TCP without beacons, which would need a fixed port.
type quiet struct{ meshage.TCP }

func (quiet) Beacons(int, string) (meshage.Beacons, error) { return silence{make(chan struct{})}, nil }

type silence struct{ done chan struct{} }

func (s silence) Send([]byte) error { return nil }
func (s silence) Close() error      { close(s.done); return nil }

func TestDialSaysWhyNot(t *testing.T) {
	a := start(t, meshage.Options{Name: "a", Transport: quiet{}})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	for _, c := range []struct{ to, want string }{
		{free.Addr().String(), "refused: no minimega listens there"},
		{silent.Addr().String(), "no answer"},
		{on(a), "this node itself"},
		{"127.0.0.1:http", `"http" is not a port`},
		{"", "give its IP address"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := a.Dial(ctx, c.to)
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("dial %q: %v", c.to, err)
		}
	}
}

// Without a key nothing listens off this host.
func TestWithoutKeyOnlyLoopback(t *testing.T) {
	a := start(t, meshage.Options{Name: "a"})
	for _, at := range a.Addresses() {
		if !at.Addr().IsLoopback() {
			t.Errorf("listens on %s", at)
		}
	}
}

// Strangers get not one byte, soon lose their connections, and keep nobody
// else out.
func TestStrangers(t *testing.T) {
	key := testKey(t)
	a := start(t, meshage.Options{Name: "a", Key: key, Transport: quiet{}})
	knocks := map[string]func(net.Conn){
		"random": func(c net.Conn) {
			b := make([]byte, 64)
			_, _ = rand.Read(b)
			_, _ = c.Write(b)
		},
		"http": func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") },
		"tls": func(c net.Conn) {
			_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context())
		},
		"half": func(c net.Conn) { _, _ = c.Write([]byte{1, 2, 3}) },
		"mute": func(net.Conn) {},
	}
	for name, knock := range knocks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", on(a))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			knock(c)
			n, err := c.Read(make([]byte, 1))
			var timeout net.Error
			if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		for range 5 {
			if s := strangers(t, on(a), 400); joins(t, key, on(a)) && held(t, s) {
				return
			}
		}
		t.Error("a member got in no sooner than the strangers were out, five times")
	})
}

// strangers opens connections that say next to nothing, and returns the last.
func strangers(t *testing.T, to string, count int) (last net.Conn) {
	t.Helper()
	for range count {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = c.Write([]byte{0})
		last = c
	}
	return last
}

// joins reports whether a new member gets in.
func joins(t *testing.T, key *meshage.Key, to string) bool {
	t.Helper()
	b := start(t, meshage.Options{Name: "b", Key: key, Transport: quiet{}})
	err := b.Dial(t.Context(), to)
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// held reports whether a connection is still open.
func held(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (s silence) Receive([]byte) (int, netip.Addr, error) {
	<-s.done
	return 0, netip.Addr{}, net.ErrClosed
}
