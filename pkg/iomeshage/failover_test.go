package iomeshage

import (
	"errors"
	"os"
	"testing"
	"time"
)

// lose waits until a host knows that a source of its transfer is gone.
func (w *world) lose(host, name, source string) {
	w.t.Helper()
	tr := w.hosts[host].running(name)
	w.hub.Kill(source)
	waitFor(w.t, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.peers[source].gone
	})
}

// The host that vouches for a file is lost and comes back with another of the
// same size: what has come of the first is not mixed with the second.
func TestAuthorityComesBackWithAnotherFile(t *testing.T) {
	t.Parallel()
	for _, second := range []bool{false, true} {
		w := newWorld(t)
		content := random(1, 40<<20)
		a := w.join("a", Options{Rate: 8 << 20})
		w.put("f", content, "a")
		if second {
			w.join("b", Options{Rate: 8 << 20})
			w.put("f", content, "b")
		}
		c := w.join("c", Options{HeadNode: "a"})
		done := make(chan error, 1)
		go func() { done <- c.Get(within(t, time.Minute), "f") }()
		waitFor(t, func() bool { st := c.Status(); return len(st) == 1 && st[0].Done >= 3 })
		w.lose("c", "f", "a")
		w.put("f", random(2, len(content)), "a")
		w.join("a", Options{Root: a.opts.Root})
		err := <-done
		if second {
			if err != nil {
				t.Errorf("b has it all, and got %v", err)
			}
			w.has("f", content, "c")
			continue
		}
		if !errors.Is(err, ErrChanged) {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(w.path("c", "f")); err == nil {
			t.Error("a mix is there")
		}
	}
}
