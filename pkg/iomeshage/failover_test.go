package iomeshage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/meshtest"
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

// failing is a host whose disk fails on some chunks.
type failing struct {
	meshage.Mesh
	on func(chunk int) bool
}

func (l failing) Handle(protocol string, h meshage.Handler) {
	if protocol != chunkProtocol {
		return
	}
	l.Mesh.Handle(protocol, func(ctx context.Context, from string, s meshage.Stream) {
		h(ctx, from, &failingStream{Stream: s, on: l.on})
	})
}

type failingStream struct {
	meshage.Stream
	on   func(chunk int) bool
	rest bytes.Buffer // of a request
}

// Read hides requests for bad chunks from the service, and refuses them itself.
func (l *failingStream) Read(p []byte) (int, error) {
	for l.rest.Len() == 0 {
		q, err := readRequest(l.Stream)
		switch {
		case err != nil:
			return 0, err
		case l.on(q.Chunk):
			err = writeRefusal(l.Stream, refuse(codeFailed, "read f: input/output error"))
		default:
			err = writeRequest(&l.rest, q)
		}
		if err != nil {
			return 0, err
		}
	}
	return l.rest.Read(p)
}

// A disk that fails at the only source ends the transfer, and is named; where
// another host has the chunk, it comes from there.
func TestDiskOfSourceFails(t *testing.T) {
	t.Parallel()
	for name, on := range map[string]func(int) bool{
		"all":  func(int) bool { return true },
		"last": func(chunk int) bool { return chunk == 2 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "c")
			content := random(3, 10<<20)
			w.joinAs("a", Options{}, failing{w.hub.Join("a"), on})
			w.put("f", content, "a")
			err := w.hosts["c"].Get(within(t, 2*time.Minute), "f")
			if err == nil || !strings.Contains(err.Error(), "no host has all of it") || !strings.Contains(err.Error(), "a: chunk ") || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("got %v", err)
			}
			w.join("b", Options{})
			w.put("f", content, "b")
			mustGet(t, w.hosts["c"], "f")
			w.has("f", content, "c")
		})
	}
}

// Where the only source lies, the error says so.
func TestOnlySourceLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "c")
	w.joinAs("bad", Options{}, liar{w.hub.Join("bad"), func(b *bytes.Buffer) {
		if p := b.Bytes(); p[0] == frameData {
			p[len(p)-1] ^= 1
		}
	}})
	w.put("f", random(4, 10<<20), "bad")
	err := w.hosts["c"].Get(within(t, time.Minute), "f")
	if err == nil || !strings.Contains(err.Error(), "bad: chunk ") || !strings.Contains(err.Error(), errLie.Error()) {
		t.Errorf("got %v", err)
	}
}

// silent is a host that never answers requests of one protocol.
type silent struct {
	meshage.Mesh
	protocol string
}

func (l silent) Respond(protocol string, r meshage.Responder) {
	if protocol == l.protocol {
		r = func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }
	}
	l.Mesh.Respond(protocol, r)
}

// A host that vouches but does not say where the file has data is replaced by
// the next that has all of it; if there is none, the error names it.
func TestHungBeforeFirstChunk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.joinAs("a", Options{}, silent{w.hub.Join("a"), extentProtocol})
	c := w.join("c", Options{HeadNode: "a"})
	w.put("f", []byte("f"), "a")
	if err := c.Get(within(t, time.Minute), "f"); err == nil || !strings.Contains(err.Error(), "a: it does not answer in time") {
		t.Errorf("got %v", err)
	}
	w.join("b", Options{})
	w.put("f", []byte("f"), "b")
	mustGet(t, c, "f")
	w.has("f", []byte("f"), "c")
}

// A host that vouches and is gone before it was asked anything is replaced, too.
func TestGoneBeforeFirstChunk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "c", "a", "b")
	w.put("f", []byte("f"), "a", "b")
	c := w.hosts["c"]
	list, _, err := c.choose(t.Context(), "f", "f", false)
	if err != nil {
		t.Fatal(err)
	}
	w.hub.Kill(list[0].authority.host)
	tr, _, err := c.bring(t.Context(), "f", list[0], map[string]bool{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.wait(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	w.has("f", []byte("f"), "c")
}

// Who asks for a file while the last who waited for it leaves gets the file,
// not the other's cancellation.
func TestJoinWhileLastLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := random(5, 16<<20)
	w.join("a", Options{Rate: 8 << 20})
	w.put("f", content, "a")
	c := w.join("c", Options{})
	first := make(chan error, 1)
	go func() { first <- c.Get(within(t, time.Minute), "f") }()
	waitFor(t, func() bool { return c.running("f") != nil })
	// The last has left, and has not come to cancel it yet.
	tr := c.running("f")
	tr.mu.Lock()
	tr.waiters = 0
	tr.mu.Unlock()
	second := make(chan error, 1)
	go func() { second <- c.Get(within(t, time.Minute), "f") }()
	ctx, cancel := context.WithTimeout(within(t, time.Minute), 10*time.Millisecond)
	defer cancel()
	if err := c.Get(ctx, "f"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	tr.cancel(context.Canceled)
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("got %v", err)
	}
	w.has("f", content, "c")
}

// A directory of which a part has come does not count as there: the next who
// needs it gets the rest, or an error while nobody has the rest.
func TestHalfDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.join("a", Options{Rate: 8 << 20})
	one, two := []byte("one"), random(6, 20<<20)
	w.put("d/1", one, "a")
	w.put("d/sub/2", two, "a")
	c := w.join("c", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { _, err := c.Fetch(ctx, w.path("c", "d")); done <- err }()
	waitFor(t, func() bool {
		_, err := os.Stat(w.path("c", "d/1"))
		st := c.Status()
		return err == nil && len(st) == 2 && st[0].Name == "d" && st[0].Done == 3 && st[0].Total == 4 && st[1].Done >= 1
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	w.hub.Kill("a")
	for _, others := range []bool{false, true} { // alone, and with one that does not have it
		if others {
			w.join("b", Options{})
		}
		for _, dir := range []string{"d", "d/sub"} {
			if _, err := c.Fetch(within(t, time.Minute), w.path("c", dir)); err == nil || !strings.Contains(err.Error(), "d/sub/2") {
				t.Errorf("%s, others %v: got %v", dir, others, err)
			}
		}
	}
	w.join("a", Options{Root: a.opts.Root})
	for _, dir := range []string{"d/sub", "d"} {
		if _, err := c.Fetch(within(t, time.Minute), w.path("c", dir)); err != nil {
			t.Error(err)
		}
	}
	w.has("d/1", one, "c")
	w.has("d/sub/2", two, "c")
}

// A directory that comes in the background leaves nothing behind, and one that
// is deleted is not wanted any more.
func TestHalfDirectoryForgotten(t *testing.T) {
	w := newWorld(t, "a", "c")
	c := w.hosts["c"]
	w.put("d/1", []byte("one"), "a")
	w.put("d/2", []byte("two"), "a")
	if _, err := c.Start(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(w.leftovers("c")) == 0 })
	w.has("d/2", []byte("two"), "c")
	if err := c.mark("d", []*target{{name: "d/3"}}); err != nil {
		t.Fatal(err)
	}
	if got := c.lacking("d"); !slices.Equal(got, []string{"d/3"}) {
		t.Errorf("got %v", got)
	}
	if list, err := os.ReadDir(filepath.Join(c.opts.Root)); err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
	if err := c.Delete("d"); err != nil {
		t.Fatal(err)
	}
	w.clean("c")
}

// Of many files that do not come, a few are named and the others counted.
func TestManyFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.join("a", Options{Rate: 1 << 20})
	for i := range 3 * maxNamed {
		w.put(fmt.Sprintf("d/%d", i), random(uint64(i), 1<<20), "a")
	}
	c := w.join("c", Options{})
	done := make(chan error, 1)
	go func() { _, err := c.Fetch(within(t, time.Minute), w.path("c", "d")); done <- err }()
	waitFor(t, func() bool { return len(c.Status()) > 0 })
	w.hub.Kill("a")
	err := <-done
	if err == nil || strings.Count(err.Error(), "\n") != maxNamed || !strings.Contains(err.Error(), "more files failed") {
		t.Errorf("got %v", err)
	}
}

// counted counts what is written to a stream.
type counted struct {
	meshage.Stream
	n *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// A source that is slow sends little more than the file, however many fetch it.
func TestSlowSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := random(5, 16<<20)
	a := w.join("a", Options{Rate: 8 << 20})
	w.put("f", content, "a")
	var sent atomic.Int64
	node := a.network().(*meshtest.Node)
	node.Handle(directProtocol, func(context.Context, string, meshage.Stream) {}) // so that all goes over the mesh
	node.Handle(chunkProtocol, func(ctx context.Context, from string, s meshage.Stream) {
		a.serve(ctx, from, counted{s, &sent})
	})
	const hosts = 9
	var all sync.WaitGroup
	for i := range hosts {
		s := w.join(fmt.Sprintf("h%d", i), Options{})
		all.Go(func() {
			if err := s.Get(within(t, 2*time.Minute), "f"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range hosts {
		w.has("f", content, fmt.Sprintf("h%d", i))
	}
	times := float64(sent.Load()) / float64(len(content))
	t.Logf("the source sent the file %.2f times", times)
	if times > hosts/2 {
		t.Errorf("the source sent it %.2f times, to %d hosts", times, hosts)
	}
}
