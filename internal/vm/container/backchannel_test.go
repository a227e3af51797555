package container

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"minimega/internal/vm"
)

// echoes serves agents: what they say is said back.
func echoes(_ context.Context, _ *vm.Spec, c net.Conn) { _, _ = io.Copy(c, c) }

func TestBackchannel(t *testing.T) {
	b := newBenchWith(t, Options{Backchannel: echoes})
	for _, users := range []bool{false, true} {
		for _, snapshot := range []bool{true, false} {
			c := b.config("agent")
			c.UserNS, c.Snapshot = users, snapshot
			if shown := b.succeeds(c); !strings.Contains(shown, "spoke") {
				t.Errorf("userns %v, snapshot %v: %q", users, snapshot, shown)
			}
			if _, err := os.Lstat(filepath.Join(b.root, backchannelName)); !os.IsNotExist(err) {
				t.Errorf("snapshot %v: the socket stayed in the file system: %v", snapshot, err)
			}
		}
	}
}

func TestNoBackchannel(t *testing.T) {
	b := newBenchWith(t, Options{Backchannel: echoes})
	c := b.config("agent")
	c.Backchannel = false
	if code, shown := b.wait(b.start(c)); code == 0 || !strings.Contains(shown, "no such file") {
		t.Errorf("%d: %s", code, shown)
	}
}

// What a file system holds at cc leads nowhere.
func TestBackchannelOverLinks(t *testing.T) {
	b := newBenchWith(t, Options{Backchannel: echoes})
	cc, victim := filepath.Join(b.root, backchannelName), filepath.Join(b.base, "victim")
	for _, put := range []func() error{
		func() error { return os.Symlink(victim, cc) },
		func() error { return os.WriteFile(victim, []byte("precious"), 0o600) }, // the link leads to something now
		func() error { return os.Remove(cc) },
		func() error { return os.WriteFile(cc, []byte("a file"), 0o600) },
		func() error { return os.Remove(cc) },
		func() error { return os.MkdirAll(filepath.Join(cc, "below"), 0o700) },
	} {
		_, absent := os.Lstat(victim)
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(cc); err != nil {
			continue
		}
		b.succeeds(b.config("agent"))
		in := b.config("agent")
		in.Snapshot = false
		m, err := b.engine.Launch(t.Context(), b.spec(in))
		if err == nil {
			b.endAfter(m)
			t.Error("launched in the place of what is no socket")
		} else if !strings.Contains(err.Error(), cc) {
			t.Error(err)
		}
		if _, err := os.Lstat(victim); absent != nil && err == nil && !strings.Contains(readFile(victim), "precious") {
			t.Error("something was made where the link leads")
		}
	}
	if got := readFile(victim); got != "precious" {
		t.Errorf("the file that the link led to holds %q", got)
	}
}

func readFile(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

// A container that connects again and again costs a few descriptors.
func TestBackchannelFlood(t *testing.T) {
	var now, most atomic.Int64
	b := newBenchWith(t, Options{Backchannel: func(ctx context.Context, _ *vm.Spec, _ net.Conn) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-ctx.Done() // never lets go by itself
		now.Add(-1)
	}})
	m := b.start(b.config("connects"))
	until(t, "the flood", func() bool { return strings.Contains(m.shown(), "connected") })
	if got := most.Load(); got > backchannelMost {
		t.Errorf("%d connections at once", got)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of those who serve", func() bool { return now.Load() == 0 })
}

// The socket lives on while no daemon does, and the next one serves it.
func TestBackchannelAdopted(t *testing.T) {
	b := newBenchWith(t, Options{Backchannel: echoes})
	s := b.spec(b.config("agent"))
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(upperName, backchannelName), consoleName} {
		if st, err := os.Lstat(filepath.Join(s.Dir, name)); err != nil || st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	keeper := first.(*Machine).keeper.pid
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	later := New(b.engine.opts, b.engine.log)
	t.Cleanup(func() {
		if err := later.Close(); err != nil {
			t.Error(err)
		}
	})
	second, err := later.Adopt(t.Context(), s, keeper)
	if err != nil {
		t.Fatal(err)
	}
	m := second.(*Machine)
	b.endAfter(m)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, shown := b.wait(m); code != 0 || !strings.Contains(shown, "spoke") {
		t.Errorf("%d: %s", code, shown)
	}
}
