package iomeshage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/meshtest"
)

// world is a mesh of hosts inside a test.
type world struct {
	t     *testing.T
	hub   *meshtest.Hub
	hosts map[string]*Service
	logs  map[string]*logBuffer
}

// logBuffer keeps what a host logs.
type logBuffer struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, hub: meshtest.NewHub(), hosts: map[string]*Service{}, logs: map[string]*logBuffer{}}
	t.Cleanup(w.hub.Close)
	for _, n := range names {
		w.join(n, Options{})
	}
	return w
}

// join adds a host; a Root in o replaces the usual one.
func (w *world) join(name string, o Options) *Service {
	w.t.Helper()
	return w.joinAs(name, o, w.hub.Join(name))
}

func (w *world) joinAs(name string, o Options, mesh meshage.Mesh) *Service {
	w.t.Helper()
	if o.Root == "" {
		o.Root = w.t.TempDir()
	}
	log := &logBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Join(mesh)
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			w.t.Error(err)
		}
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", name, log)
		}
	})
	w.hosts[name], w.logs[name] = s, log
	return s
}

func (w *world) path(host, name string) string { return filepath.Join(w.hosts[host].opts.Root, name) }

// put makes a file at hosts, with the same time everywhere.
func (w *world) put(name string, content []byte, hosts ...string) {
	w.t.Helper()
	for _, h := range hosts {
		p := w.path(h, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o640); err != nil {
			w.t.Fatal(err)
		}
		at := time.Unix(1700000000, 12345)
		if err := os.Chtimes(p, at, at); err != nil {
			w.t.Fatal(err)
		}
	}
}

// has fails unless each host has the file whole, and nothing left over.
func (w *world) has(name string, content []byte, hosts ...string) {
	w.t.Helper()
	for _, h := range hosts {
		got, err := os.ReadFile(w.path(h, name))
		if err != nil || !bytes.Equal(got, content) {
			w.t.Errorf("%s on %s: %d bytes, %v, want %d", name, h, len(got), err, len(content))
		}
		w.clean(h)
	}
}

// clean fails if a host keeps partial files.
func (w *world) clean(host string) {
	w.t.Helper()
	if left := w.leftovers(host); len(left) > 0 {
		w.t.Errorf("%s keeps %v", host, left)
	}
}

func (w *world) leftovers(host string) (left []string) {
	_ = filepath.WalkDir(w.hosts[host].opts.Root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), partialPrefix) {
			left = append(left, p)
		}
		return nil
	})
	return left
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustGet(t *testing.T, s *Service, name string) {
	t.Helper()
	if err := s.Get(within(t, time.Minute), name); err != nil {
		t.Error(err)
	}
}

func TestOneToNine(t *testing.T) {
	names := []string{"r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"}
	w := newWorld(t, append(names, "src")...)
	content := random(1, 41<<20+4711)
	w.put("images/disk.raw", content, "src")
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() { mustGet(t, w.hosts[n], "images/disk.raw") })
	}
	wg.Wait()
	w.has("images/disk.raw", content, names...)
	st, err := os.Stat(w.path("r1", "images/disk.raw"))
	if err != nil || st.Mode() != 0o640 || !st.ModTime().Equal(time.Unix(1700000000, 12345)) {
		t.Errorf("%v, %v", st, err)
	}
}

func TestSizes(t *testing.T) {
	w := newWorld(t, "a", "b")
	for _, n := range []int{0, 1, blockSize - 1, blockSize, blockSize + 1, minChunk, minChunk + 1, 3*minChunk - blockSize} {
		name := fmt.Sprint("f", n)
		content := random(uint64(n), n)
		w.put(name, content, "a")
		mustGet(t, w.hosts["b"], name)
		w.has(name, content, "b")
	}
}

func TestDirectoriesAndPatterns(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.put("d/x.img", []byte("x"), "a")
	w.put("d/e/y.img", []byte("y"), "a")
	w.put("d/z.txt", []byte("z"), "c")
	w.put("top.img", []byte("t"), "c")
	mustGet(t, w.hosts["b"], "d/*.img")
	w.has("d/x.img", []byte("x"), "b")
	if _, err := os.Stat(w.path("b", "d/z.txt")); err == nil {
		t.Error("more than the pattern came")
	}
	mustGet(t, w.hosts["b"], "/d/")
	w.has("d/e/y.img", []byte("y"), "b")
	w.has("d/z.txt", []byte("z"), "b")
	err := w.hosts["b"].Get(t.Context(), "none/*")
	if !errors.Is(err, ErrNotFound) || err.Error() != "get none/*: file not found" {
		t.Errorf("got %v", err)
	}
}

func TestSparse(t *testing.T) {
	w := newWorld(t, "a", "b")
	p := w.path("a", "sparse.raw")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	const size = 400 << 20
	for _, at := range []int64{5, 100 << 20, 300<<20 + 13} {
		if _, err := f.WriteAt(random(9, 300<<10), at); err != nil {
			t.Fatal(err)
		}
	}
	// Zeros that are written become a hole, too.
	if _, err := f.WriteAt(make([]byte, 16<<20), 200<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w.hosts["b"], "sparse.raw")
	var st unix.Stat_t
	if err := unix.Stat(w.path("b", "sparse.raw"), &st); err != nil || st.Size != size || st.Blocks*512 > 3<<20 {
		t.Errorf("%d bytes of which %d on disk, %v", st.Size, st.Blocks*512, err)
	}
	same(t, p, w.path("b", "sparse.raw"))
	w.clean("b")
}

// same compares two files piece by piece.
func same(t *testing.T, a, b string) {
	t.Helper()
	fa, err := os.Open(a)
	if err != nil {
		t.Fatal(err)
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer fb.Close()
	pa, pb := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, erra := fa.Read(pa)
		m, errb := fb.Read(pb)
		if n != m || !bytes.Equal(pa[:n], pb[:m]) || (erra == nil) != (errb == nil) {
			t.Fatalf("%s and %s differ (%v, %v)", a, b, erra, errb)
		}
		if erra != nil {
			return
		}
	}
}

func TestNotFoundAndAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	if err := w.hosts["a"].Get(t.Context(), "none"); err != nil {
		t.Errorf("alone: %v", err)
	}
	note, err := w.hosts["a"].Start(t.Context(), "none")
	if err != nil || !strings.Contains(note, "not here") {
		t.Errorf("alone: %q, %v", note, err)
	}
	w.join("b", Options{})
	for _, f := range []func() error{
		func() error { return w.hosts["a"].Get(t.Context(), "none") },
		func() error { _, err := w.hosts["a"].Start(t.Context(), "none"); return err },
	} {
		if err := f(); !errors.Is(err, ErrNotFound) || err.Error() != "get none: file not found" {
			t.Errorf("got %v", err)
		}
	}
	w.hub.Hang("b")
	ctx := within(t, 10*time.Second)
	if err := w.hosts["a"].Get(ctx, "none"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "no answer from b") {
		t.Errorf("got %v", err)
	}
}

func TestStartStatusInFlight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a")
	content := random(3, 20<<20)
	w.put("big", content, "a")
	b := w.join("b", Options{Rate: 8 << 20})
	began := time.Now()
	if _, err := b.Start(t.Context(), "/big"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Start(t.Context(), "big"); !errors.Is(err, ErrInFlight) || err.Error() != "file already in flight" {
		t.Errorf("got %v", err)
	}
	st := b.Status()
	if len(st) != 1 || st[0].Name != "/big" || st[0].Total != 40 || !strings.HasPrefix(st[0].Dir, b.opts.Root+"/"+partialPrefix) {
		t.Errorf("%+v", st)
	}
	if list, err := b.List(t.Context(), "/", false); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	mustGet(t, b, "big") // waits with the other
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second {
		t.Errorf("20 MiB at 8 MiB/s took %v", took)
	}
	w.has("big", content, "b")
	if st := b.Status(); len(st) > 0 {
		t.Errorf("%+v", st)
	}
	if _, err := b.Start(t.Context(), "big"); err != nil {
		t.Error(err)
	}
}

func TestSourceDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := random(4, 64<<20)
	for _, n := range []string{"a", "b"} {
		w.join(n, Options{Rate: 16 << 20})
		w.put("f", content, n)
	}
	c := w.join("c", Options{})
	done := make(chan error, 1)
	go func() { done <- c.Get(within(t, time.Minute), "f") }()
	waitFor(t, func() bool { st := c.Status(); return len(st) == 1 && st[0].Done >= 2 })
	// Both are in use; the one that vouches for the file dies.
	w.hub.Kill(c.running("f").authority)
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.has("f", content, "c")
	if !strings.Contains(w.logs["c"].String(), "another host vouches") {
		t.Error("no word about the new authority")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx := within(t, time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it never came")
		case <-tick.C:
		}
	}
}

func TestLastSourceDiesThenResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := random(5, 40<<20)
	a := w.join("a", Options{Rate: 16 << 20})
	w.put("f", content, "a")
	c := w.join("c", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Get(ctx, "f") }()
	waitFor(t, func() bool { st := c.Status(); return len(st) == 1 && st[0].Done >= 3 })
	w.hub.Kill("a")
	cancel()
	if err := <-done; err == nil {
		t.Fatal("it came from nowhere")
	}
	if len(w.leftovers("c")) != 1 {
		t.Error("nothing is kept")
	}
	// One of the chunks that are there is damaged; it must be found and fetched again.
	i := damage(t, w.leftovers("c")[0], a)
	w.join("a2", Options{Root: a.opts.Root})
	mustGet(t, c, "f")
	w.has("f", content, "c")
	log := w.logs["c"].String()
	if !strings.Contains(log, "goes on where it broke off") {
		t.Errorf("chunk %d damaged; it began afresh:\n%s", i, log)
	}
}

// damage changes a byte of a chunk that the record says is there.
func damage(t *testing.T, dir string, s *Service) int {
	t.Helper()
	rec, err := os.Open(filepath.Join(dir, partialRecord))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	head, had, err := readRecord(rec)
	if err != nil || len(had) < 3 {
		t.Fatalf("%v, %v", had, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, partialData), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range had {
		off, _ := layoutOf(head.Size).at(i)
		if _, err := f.WriteAt([]byte("damage"), off+1000); err != nil {
			t.Fatal(err)
		}
		return i
	}
	return -1
}

func TestConflict(t *testing.T) {
	w := newWorld(t, "a", "b", "c")
	w.put("size", []byte("one"), "a")
	w.put("size", []byte("other"), "b")
	w.put("hash", []byte("one"), "a")
	w.put("hash", []byte("two"), "b")
	w.put("hash", []byte("two"), "b")
	later := time.Unix(1800000000, 0)
	if err := os.Chtimes(w.path("b", "hash"), later, later); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"size", "hash"} {
		err := w.hosts["c"].Get(t.Context(), n)
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "a has ") || !strings.Contains(err.Error(), "b has ") {
			t.Errorf("%s: got %v", n, err)
		}
		w.clean("c")
		// What is here is left alone, but `file get` says that it differs.
		if _, err := w.hosts["a"].Start(t.Context(), n); !errors.Is(err, ErrConflict) {
			t.Errorf("%s: got %v", n, err)
		}
		if err := w.hosts["a"].Get(t.Context(), n); err != nil {
			t.Error(err)
		}
	}
	d := w.join("d", Options{HeadNode: "b"})
	mustGet(t, d, "hash")
	w.has("hash", []byte("two"), "d")
	// The same content with another time is no conflict.
	w.put("same", []byte("same"), "a", "b")
	if err := os.Chtimes(w.path("b", "same"), later, later); err != nil {
		t.Fatal(err)
	}
	mustGet(t, w.hosts["c"], "same")
}

func TestChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := random(6, 32<<20)
	w.join("a", Options{Rate: 12 << 20})
	w.put("f", content, "a")
	c := w.join("c", Options{})
	done := make(chan error, 1)
	go func() { done <- c.Get(within(t, time.Minute), "f") }()
	waitFor(t, func() bool { st := c.Status(); return len(st) == 1 && st[0].Done >= 1 })
	f, err := os.OpenFile(w.path("a", "f"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := <-done; !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "on a") {
		t.Errorf("got %v", err)
	}
	w.clean("c")
	if _, err := os.Stat(w.path("c", "f")); err == nil {
		t.Error("a mix is there")
	}
}

// liar changes what its host sends on streams of chunks. It makes no direct
// connections, so these streams are what is used.
type liar struct {
	meshage.Mesh
	mangle func(*bytes.Buffer)
}

func (l liar) Handle(protocol string, h meshage.Handler) {
	if protocol != chunkProtocol {
		return
	}
	l.Mesh.Handle(protocol, func(ctx context.Context, from string, s meshage.Stream) {
		h(ctx, from, lyingStream{s, l.mangle})
	})
}

type lyingStream struct {
	meshage.Stream
	mangle func(*bytes.Buffer)
}

func (l lyingStream) Write(p []byte) (int, error) {
	b := bytes.NewBuffer(slices.Clone(p))
	l.mangle(b)
	if _, err := l.Stream.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestLiars(t *testing.T) {
	for name, mangle := range map[string]func(*bytes.Buffer){
		"data": func(b *bytes.Buffer) {
			if p := b.Bytes(); p[0] == frameData {
				p[len(p)-1] ^= 1
			}
		},
		"hash": func(b *bytes.Buffer) {
			if p := b.Bytes(); p[0] == frameEnd {
				p[len(p)-1] ^= 1
			}
		},
		"garbage": func(b *bytes.Buffer) { _, _ = rand.NewChaCha8([32]byte{}).Read(b.Bytes()) },
		"length":  func(b *bytes.Buffer) { copy(b.Bytes()[1:], "\xff\xff\xff\xff") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "c")
			content := random(7, 48<<20)
			for _, n := range []string{"a", "b"} {
				w.join(n, Options{Rate: 64 << 20})
				w.put("f", content, n)
			}
			w.joinAs("bad", Options{}, liar{w.hub.Join("bad"), mangle})
			w.put("f", content, "bad")
			mustGet(t, w.hosts["c"], "f")
			w.has("f", content, "c")
			log := w.logs["c"].String()
			if !strings.Contains(log, "not used as a source any more") || !strings.Contains(log, "host=bad") {
				t.Errorf("the liar is not named:\n%s", log)
			}
			if strings.Contains(log, "any more\" file=f host=a ") || strings.Contains(log, "any more\" file=f host=b ") {
				t.Errorf("an honest host is blamed:\n%s", log)
			}
		})
	}
}

// smallDisk is a directory on a file system of its own, made by options of tmpfs(5).
func smallDisk(t *testing.T, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts a small tmpfs, for which it must be root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestFullDiskAtOnce: there is no room even for a note of what is to come.
func TestFullDiskAtOnce(t *testing.T) {
	for _, options := range []string{"size=64k", "nr_inodes=3", "nr_inodes=4"} {
		t.Run(options, func(t *testing.T) {
			dir := smallDisk(t, options)
			w := newWorld(t, "src")
			w.put("f", random(8, 1<<20), "src")
			small := w.join("small", Options{Root: dir})
			if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 64<<10), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := small.Get(t.Context(), "f"); !errors.Is(err, ErrFull) {
				t.Errorf("got %v", err)
			}
			w.clean("small")
		})
	}
}

// TestOneFetcher: two minimegas on one directory do not write to one file.
func TestOneFetcher(t *testing.T) {
	dir := t.TempDir()
	open := func() (*partial, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := openPartial(root, "f", 1<<20)
		return p, err
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another minimega is fetching f") {
		t.Errorf("the second: %v", err)
	}
	first.close()
	again, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if again.fresh {
		t.Error("what the first had brought is forgotten")
	}
	again.close()
}

func TestFullDiskOnOneOfMany(t *testing.T) {
	dir := smallDisk(t, "size=8m")
	w := newWorld(t, "src", "r1", "r2")
	small := w.join("small", Options{Root: dir})
	content := random(8, 20<<20)
	w.put("f", content, "src")
	var wg sync.WaitGroup
	for _, n := range []string{"r1", "r2"} {
		wg.Go(func() { mustGet(t, w.hosts[n], "f") })
	}
	began := time.Now()
	err := small.Get(t.Context(), "f")
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "20 MiB needed, 8 MiB free, 13 MiB missing") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("said only after %v", took)
	}
	w.clean("small")
	wg.Wait()
	w.has("f", content, "r1", "r2")
}

func TestCancelThenDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.join("a", Options{Rate: 8 << 20})
	w.put("d/f", random(10, 40<<20), "a")
	c := w.join("c", Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Get(ctx, "d/f") }()
	waitFor(t, func() bool { st := c.Status(); return len(st) == 1 && st[0].Done >= 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(w.leftovers("c")) != 1 {
		t.Error("nothing is kept to go on with")
	}
	if _, err := c.Start(t.Context(), "d/f"); err != nil {
		t.Error(err)
	}
	if err := c.Delete("d/*"); err != nil {
		t.Error(err)
	}
	w.clean("c")
	if st := c.Status(); len(st) > 0 {
		t.Errorf("%+v", st)
	}
}

func TestBacking(t *testing.T) {
	below := map[string]string{"top": "mid", "mid": "base", "x": "y", "y": "x", "out": "../../etc/passwd"}
	backing := func(root string) func(string) ([]string, error) {
		return func(p string) ([]string, error) {
			if b := below[filepath.Base(p)]; b != "" {
				return []string{filepath.Join(root, b)}, nil
			}
			return nil, nil
		}
	}
	w := newWorld(t, "a")
	for _, n := range []string{"top", "mid", "base", "x", "y", "out"} {
		w.put(n, []byte(n), "a")
	}
	root := t.TempDir()
	c := w.join("c", Options{Root: root, Backing: backing(root)})
	mustGet(t, c, "top")
	for _, n := range []string{"top", "mid", "base"} {
		w.has(n, []byte(n), "c")
	}
	if err := c.Get(within(t, time.Minute), "x"); err == nil || !strings.Contains(err.Error(), "no end") {
		t.Errorf("a loop: %v", err)
	}
	mustGet(t, c, "out")
	if err := os.Remove(filepath.Join(root, "base")); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Fetch(within(t, time.Minute), filepath.Join(root, "top")); err != nil || p != filepath.Join(root, "top") {
		t.Errorf("%q, %v", p, err)
	}
	w.has("base", []byte("base"), "c")
}

func TestFetch(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.put("d/f", []byte("f"), "a")
	b := w.hosts["b"]
	if p, err := b.Fetch(within(t, time.Minute), w.path("b", "d/f")); err != nil || p != w.path("b", "d/f") {
		t.Errorf("%q, %v", p, err)
	}
	w.has("d/f", []byte("f"), "b")
	for _, p := range []string{"/etc/none", "relative", b.opts.Root, w.path("b", "d"), w.path("b", "../x")} {
		if got, err := b.Fetch(t.Context(), p); err != nil || got != p {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := b.Fetch(t.Context(), w.path("b", "none")); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// Two hosts of an open mesh send as it is; one that wants it sealed gets it so.
func TestPlain(t *testing.T) {
	w := newWorld(t)
	w.join("a", Options{Plain: true})
	w.join("b", Options{Plain: true})
	w.join("c", Options{})
	content := random(11, 9<<20)
	copy(content[blockSize:], make([]byte, 2*blockSize)) // zeros that are no hole
	w.put("f", content, "a")
	for range 2 { // the second time the source knows the hashes
		for _, n := range []string{"b", "c"} {
			mustGet(t, w.hosts[n], "f")
			w.has("f", content, n)
			if err := os.Remove(w.path(n, "f")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if log := w.logs["c"].String(); !strings.Contains(log, "unencrypted") || strings.Contains(w.logs["b"].String(), "go over the mesh") {
		t.Errorf("c took what is not sealed, or b did not:\n%s", log)
	}
}

// What two hosts say to each other over a sealed connection cannot be changed
// on the way.
func TestSealed(t *testing.T) {
	a, b := tcpPair(t)
	v := invitation{Ask: secret(), Answer: secret()}
	guest, err := v.connection(a, v.Answer, v.Ask)
	if err != nil {
		t.Fatal(err)
	}
	host, err := v.connection(b, v.Ask, v.Answer)
	if err != nil {
		t.Fatal(err)
	}
	content := random(12, 3*maxRecord+17)
	go func() { _, _ = guest.Write(content) }()
	got := make([]byte, len(content))
	if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%v", err)
	}
	go func() { _, _ = a.Write(append([]byte{0, 0, 0, 1}, make([]byte, 17)...)) }()
	if _, err := host.Read(got); err == nil || !strings.Contains(err.Error(), "not authentic") {
		t.Errorf("got %v", err)
	}
}

func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}
