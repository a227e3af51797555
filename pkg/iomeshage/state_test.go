package iomeshage

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Two hosts have the same where what they have is alike, or reads alike.
func TestCompare(t *testing.T) {
	w := newWorld(t, "a", "b")
	a, b := w.hosts["a"], w.hosts["b"]
	compare := func(name string) error {
		t.Helper()
		st, ok := a.State(name)
		if !ok {
			t.Fatalf("%s is not at a", name)
		}
		return b.Compare(within(t, time.Minute), name, "a", st)
	}
	touch := func(host, name string) {
		t.Helper()
		now := time.Now()
		if err := os.Chtimes(w.path(host, name), now, now); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range []string{"a", "b"} {
		w.plant(host, "d/f", "d/l -> f", "d/e/", "d/sub/g", "one")
	}
	w.chmod("b", "d/e", 0o700) // permissions are not content
	want := func(name, conflict string) {
		t.Helper()
		switch err := compare(name); {
		case conflict == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case conflict != "" && (!errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), conflict)):
			t.Errorf("%s: got %v, want %s", name, err, conflict)
		}
	}
	want("d", "")
	want("one", "")
	touch("b", "d/f")
	touch("b", "one")
	want("d", "")
	want("one", "")

	// The answer is remembered until something is written.
	asked := len(b.agreed)
	want("d", "")
	if len(b.agreed) != asked || asked != 2 {
		t.Errorf("%d answers are remembered, were %d", len(b.agreed), asked)
	}
	before, err := os.Stat(w.path("b", "one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(w.path("b", "one"), []byte("two"), 0o640), os.Chtimes(w.path("b", "one"), time.Now(), before.ModTime())); err != nil {
		t.Fatal(err)
	}
	want("one", "one: different content under one name: b has ")

	if err := os.Remove(w.path("b", "d/l")); err != nil {
		t.Fatal(err)
	}
	want("d", "a has d/l, which b has not")
	w.plant("b", "d/l -> g")
	want("d", `b has a link to "g", a has a link to "f"`)
	if err := os.Remove(w.path("a", "d/l")); err != nil {
		t.Fatal(err)
	}
	want("d", "b has d/l, which a has not")
	w.put("d/f", []byte("more"), "a")
	want("d", "d/f: different content under one name: b has 3 bytes, a has 4 bytes")
	if err := b.Delete("one"); err != nil {
		t.Fatal(err)
	}
	w.plant("b", "one/")
	want("one", "b has a directory, a has 3 bytes")
	if err := b.Delete("one"); err != nil {
		t.Fatal(err)
	}
	want("one", "") // it is not there to differ
}

// A host that cannot be asked leaves it open, soon.
func TestCompareWithLostHost(t *testing.T) {
	t.Parallel()
	for _, lose := range []func(*world){func(w *world) { w.hub.Hang("a") }, func(w *world) { w.hub.Kill("a") }} {
		w := newWorld(t, "a", "b")
		w.put("f", []byte("f"), "a")
		st, _ := w.hosts["a"].State("f")
		w.put("f", []byte("g"), "b")
		now := time.Now()
		if err := os.Chtimes(w.path("b", "f"), now, now); err != nil {
			t.Fatal(err)
		}
		lose(w)
		if err := w.hosts["b"].Compare(within(t, time.Minute), "f", "a", st); err == nil || errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "f: a: ") {
			t.Errorf("got %v", err)
		}
		// What the sizes tell needs nobody.
		st.Size++
		if err := w.hosts["b"].Compare(within(t, time.Minute), "f", "a", st); !errors.Is(err, ErrConflict) {
			t.Errorf("got %v", err)
		}
	}
}

func TestStack(t *testing.T) {
	root := t.TempDir()
	w := newWorld(t)
	s := w.join("a", Options{Root: root, Backing: func(p string) ([]string, error) {
		switch strings.TrimPrefix(p, root+"/") {
		case "top":
			return []string{root + "/mid"}, nil
		case "mid":
			return []string{root + "/top", "/etc/passwd", root + "/d/base"}, nil
		}
		return nil, nil
	}})
	w.plant("a", "top", "mid", "d/base")
	if got := s.Stack(root + "/top"); !slices.Equal(got, []string{"top", "mid", "d/base"}) {
		t.Errorf("got %q", got)
	}
	for _, p := range []string{"/etc/passwd", root, root + "/../x"} {
		if got := s.Stack(p); got != nil {
			t.Errorf("%s: %q", p, got)
		}
	}
	if _, ok := s.State("none"); ok {
		t.Error("nothing has a state")
	}
}
