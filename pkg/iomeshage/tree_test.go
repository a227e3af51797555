package iomeshage

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/pkg/meshage"
)

// plant makes a tree at a host: names that end in / are directories, those with
// an arrow links, others files that hold their name.
func (w *world) plant(host string, names ...string) {
	w.t.Helper()
	for _, n := range names {
		name, to, isLink := strings.Cut(n, " -> ")
		p := w.path(host, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(to, p)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			w.put(name, []byte(name), host)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) chmod(host, name string, mode fs.FileMode) {
	w.t.Helper()
	if err := os.Chmod(w.path(host, name), mode); err != nil {
		w.t.Fatal(err)
	}
}

// tree is all that lies below a directory, with its mode and what it holds.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		v := st.Mode().String()
		switch st.Mode().Type() {
		case fs.ModeSymlink:
			to, _ := os.Readlink(p)
			v += " " + to
		case 0:
			b, _ := os.ReadFile(p)
			v += " " + string(b)
		}
		rel, err := filepath.Rel(dir, p)
		out[rel] = v
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// closed makes a host whose files directory others do not reach.
func (w *world) closed(name string) *Service {
	w.t.Helper()
	s := w.join(name, Options{})
	w.chmod(name, "", 0o700)
	return s
}

var wholeTree = []string{"d/usr/bin/sh", "d/usr/bin/su", "d/bin -> usr/bin", "d/usr/bin/bash -> sh", "d/init -> /init", "d/passwd -> /etc/passwd",
	"d/up -> ../../../..", "d/nowhere -> none", "d/empty/", "d/deep/er/", "d/tmp/"}

// A directory comes with its links, wherever they lead, its empty directories
// and its modes, by Get as by Start, and again where a part of it is missing.
func TestWholeDirectory(t *testing.T) {
	w := newWorld(t, "a")
	w.plant("a", wholeTree...)
	w.chmod("a", "d/empty", 0o750)
	w.chmod("a", "d/tmp", 0o777|fs.ModeSticky)
	if os.Geteuid() == 0 {
		w.chmod("a", "d/usr/bin/su", 0o755|fs.ModeSetuid|fs.ModeSetgid)
	}
	want := tree(t, w.path("a", "d"))
	same := func(host string) {
		t.Helper()
		if got := tree(t, w.path(host, "d")); !maps.Equal(got, want) {
			t.Errorf("%s has\n%v\nwant\n%v", host, got, want)
		}
		w.clean(host)
	}
	b := w.closed("b")
	mustGet(t, b, "d")
	same("b")

	c := w.closed("c")
	if note, err := c.Start(t.Context(), "d"); err != nil || note != "" {
		t.Errorf("%q, %v", note, err)
	}
	waitFor(t, func() bool { return len(c.Status()) == 0 })
	same("c")

	// What is the same everywhere is no conflict, and what is missing comes.
	for _, gone := range [][]string{{"d/bin"}, {"d/nowhere", "d/deep"}, {"d/usr/bin/sh", "d/usr/bin/bash"}, {"d/empty"}} {
		for _, n := range gone {
			if err := os.RemoveAll(w.path("c", n)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Start(t.Context(), "d"); err != nil {
			t.Errorf("without %s: %v", gone, err)
		}
		waitFor(t, func() bool { return len(c.Status()) == 0 })
		same("c")
	}

	list, err := c.List(t.Context(), "d", true)
	var names []string
	for _, e := range list {
		names = append(names, strings.TrimPrefix(e.Name, "d/"))
	}
	slices.Sort(names)
	if want := []string{"bin", "init", "nowhere", "passwd", "up", "usr/bin/bash", "usr/bin/sh", "usr/bin/su"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("recursive list: %q, %v", names, err)
	}
	if list, err := c.List(t.Context(), "d", false); err != nil || len(list) != 9 {
		t.Errorf("list: %v, %v", list, err)
	}
	if got := c.Complete(t.Context(), "d/e"); !slices.Equal(got, []string{"d/empty/"}) {
		t.Errorf("completions: %q", got)
	}
	if err := c.Delete("d"); err != nil {
		t.Fatal(err)
	}
	if left := tree(t, w.path("c", "")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
}

// Set-id bits come only where others do not reach the files, for files of root,
// and within a directory; that they do not come is said.
func TestSetID(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes files of root and of others")
	}
	w := newWorld(t, "a", "open")
	w.plant("a", "d/su", "d/other", "d/group")
	if err := os.Chown(w.path("a", "d/other"), 1000, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(w.path("a", "d/group"), 0, 1000); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"su", "other", "group"} {
		w.chmod("a", "d/"+n, 0o755|fs.ModeSetuid|fs.ModeSetgid)
	}
	mode := func(host, name string) fs.FileMode {
		t.Helper()
		st, err := os.Stat(w.path(host, name))
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode()
	}
	mustGet(t, w.closed("b"), "d")
	for n, want := range map[string]fs.FileMode{"d/su": 0o755 | fs.ModeSetuid | fs.ModeSetgid, "d/other": 0o755 | fs.ModeSetgid, "d/group": 0o755 | fs.ModeSetuid} {
		if got := mode("b", n); got != want {
			t.Errorf("%s: %v, want %v", n, got, want)
		}
	}
	mustGet(t, w.closed("c"), "d/su")
	if got := mode("c", "d/su"); got != 0o755 {
		t.Errorf("a single file: %v", got)
	}
	if err := os.Chmod(filepath.Dir(w.path("open", "")), 0o755); err != nil { // above them all
		t.Fatal(err)
	}
	note, err := w.hosts["open"].Start(t.Context(), "d")
	if err != nil || !strings.Contains(note, "set-user-ID") {
		t.Errorf("%q, %v", note, err)
	}
	waitFor(t, func() bool { return len(w.hosts["open"].Status()) == 0 })
	if got := mode("open", "d/su"); got != 0o755 {
		t.Errorf("where others reach it: %v", got)
	}
}

// What of a directory does not travel is said.
func TestOddDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "c")
	w.plant("a", "e/usr/bin/sh")
	if err := unix.Mkfifo(w.path("a", "e/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.plant("a", "e/usr/"+strings.Repeat("x/", maxDepth), "e/usr/a\xff") // which no other host would take
	const want = `a has "e/pipe", which is no file, directory or link`
	c := w.hosts["c"]
	if note, err := c.Start(within(t, time.Minute), "e"); err != nil || !strings.Contains(note, want) {
		t.Errorf("note %q, %v", note, err)
	}
	waitFor(t, func() bool { return len(w.leftovers("c")) == 0 && len(c.Status()) == 0 })
	w.has("e/usr/bin/sh", []byte("e/usr/bin/sh"), "c")
}

// Links and directories take part in finding out that hosts have different
// things under one name.
func TestConflictOfKinds(t *testing.T) {
	for name, at := range map[string][2][]string{
		"targets":        {{"d/l -> one"}, {"d/l -> two"}},
		"link and file":  {{"d/l -> one"}, {"d/l"}},
		"link and dir":   {{"d/l -> one"}, {"d/l/"}},
		"dir and file":   {{"d/l/"}, {"d/l"}},
		"below a link":   {{"d/l -> .."}, {"d/l/f"}},
		"below a file":   {{"d/l"}, {"d/l/f"}},
		"file and empty": {{"d/l"}, {"d/l -> d/l"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c")
			w.plant("a", at[0]...)
			w.plant("b", at[1]...)
			err := w.hosts["c"].Get(within(t, time.Minute), "d")
			if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "a has ") || !strings.Contains(err.Error(), "b has ") {
				t.Errorf("got %v", err)
			}
			w.clean("c")
			for _, host := range []string{"a", "b"} {
				if _, err := w.hosts[host].Start(t.Context(), "d"); !errors.Is(err, ErrConflict) {
					t.Errorf("%s: got %v", host, err)
				}
			}
		})
	}
}

// What a link of a directory leads to does not come with it, but when it is
// asked for.
func TestThroughLink(t *testing.T) {
	w := newWorld(t, "a", "c")
	w.plant("a", "pool/v1", "d/now -> ../pool/v1", "d/out -> /etc/passwd")
	c := w.hosts["c"]
	mustGet(t, c, "d")
	if _, err := os.Stat(w.path("c", "pool")); err == nil {
		t.Error("what the link leads to came, too")
	}
	if _, err := c.Fetch(within(t, time.Minute), w.path("c", "d/now")); err != nil {
		t.Error(err)
	}
	w.has("d/now", []byte("pool/v1"), "c")
	// A link that leads out is not served as what it leads to.
	if err := w.join("e", Options{}).Get(t.Context(), "d/out"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if err := c.Stream(t.Context(), "d/out", func([]byte) error { return nil }); err == nil {
		t.Error("it is streamed")
	}
}

// Nothing is written through a link that is here, to another place in the files
// directory or out of it.
func TestNotThroughLink(t *testing.T) {
	w := newWorld(t, "a", "c")
	w.plant("a", "d/x/f", "d/x/l -> f", "d/x/e/")
	outside := t.TempDir()
	for _, to := range []string{"../other", "y", outside} {
		w.plant("c", "other/", "d/y/", "d/x -> "+to)
		for _, name := range []string{"d", "d/x", "d/x/f", "d/x/e"} {
			if err := w.hosts["c"].Get(within(t, time.Minute), name); err == nil {
				t.Errorf("%s through a link to %s came", name, to)
			}
		}
		if got := len(tree(t, outside)) + len(tree(t, w.path("c", "other"))) + len(tree(t, w.path("c", "d/y"))); got != 3 {
			t.Errorf("written through a link to %s", to)
		}
		if err := w.hosts["c"].Delete("d"); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory that turns into a link while something is written into it.
func TestDirectoryTurnsIntoLink(t *testing.T) {
	w := newWorld(t, "c")
	c := w.hosts["c"]
	outside := t.TempDir()
	w.plant("c", "d/", "d/x/", "d/inside/", "d/l -> inside", "d/o -> "+outside)
	turn := func() {
		for _, n := range []string{"d/l", "d/l", "d/o", "d/o"} {
			_ = unix.Renameat2(unix.AT_FDCWD, w.path("c", "d/x"), unix.AT_FDCWD, w.path("c", n), unix.RENAME_EXCHANGE)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				turn()
			}
		}
	}()
	wrote := 0
	for range 3000 {
		in, err := c.into("d/x")
		if err != nil {
			continue
		}
		if f, err := in.Create("f"); err == nil {
			wrote++
			_ = f.Close()
		}
		_ = in.Close()
	}
	close(stop)
	<-stopped
	if wrote == 0 {
		t.Error("nothing was written at all")
	}
	if got := len(tree(t, outside)) + len(tree(t, w.path("c", "d/inside"))); got != 2 {
		t.Error("a file went through a link")
	}
}

// answering is a peer that says that it has something.
func (w *world) answering(name, protocol string, files ...found) meshage.Mesh {
	m := w.hub.Join(name)
	m.Respond(protocol, func(context.Context, string, []byte) ([]byte, error) {
		body, err := json.Marshal(findReply{Files: files})
		if err != nil {
			return nil, err
		}
		return json.Marshal(envelope{Body: body})
	})
	return m
}

// A peer lays a link, and something through it.
func TestHostileTree(t *testing.T) {
	outside := t.TempDir()
	dir := func(n string) found { return found{Name: n, Kind: kindDir, Mode: 0o755} }
	link := func(n, to string) found { return found{Name: n, Kind: kindLink, Target: []byte(to)} }
	file := found{Name: "d/x/f", Size: 1, Version: "v"}
	for name, files := range map[string][]found{
		"file through link":  {dir("d"), link("d/x", outside), file},
		"dir through link":   {dir("d"), link("d/x", outside), dir("d/x/f")},
		"link through link":  {dir("d"), link("d/x", outside), link("d/x/f", "g")},
		"deep through link":  {link("d/x", outside), dir("d/x/y/z")},
		"link at the top":    {link("d", outside), dir("d/x")},
		"through itself":     {link("d/x", "."), file},
		"dots":               {dir("d/../../x")},
		"absolute":           {link("/d/x", "y")},
		"nul":                {link("d/x\x00", "y")},
		"nul in target":      {link("d/x", "y\x00z")},
		"no target":          {link("d/x", "")},
		"long target":        {link("d/x", strings.Repeat("y", maxName))},
		"deep":               {dir("d/" + strings.Repeat("x/", maxDepth) + "x")},
		"hidden":             {dir(partialPrefix + "d")},
		"the root":           {{Name: ".", Kind: kindDir}},
		"unknown kind":       {{Name: "d/x", Kind: "device"}},
		"directory of bytes": {{Name: "d/x", Kind: kindDir, Size: 1}},
		"file with target":   {{Name: "d/x", Size: 1, Target: []byte("y"), Version: "v"}},
		"mode":               {{Name: "d/x", Kind: kindDir, Mode: 1 << 30}},
		"partial link":       {{Name: "d/x", Kind: kindLink, Target: []byte("y"), Partial: true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "c")
			w.answering("bad", findProtocol, files...)
			err := w.hosts["c"].Get(within(t, time.Minute), "d")
			if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) {
				t.Errorf("got %v", err)
			}
			if got := tree(t, w.path("c", "")); len(got) != 1 {
				t.Errorf("made: %v", got)
			}
			if got := tree(t, outside); len(got) != 1 {
				t.Fatalf("made outside: %v", got)
			}
		})
	}
	// With an honest host beside it, that one's files come.
	w := newWorld(t, "a", "c")
	w.plant("a", "d/x/f")
	w.answering("bad", findProtocol, link("d/../x", outside))
	mustGet(t, w.hosts["c"], "d")
	w.has("d/x/f", []byte("d/x/f"), "c")
}

// A host of another version is named as that.
func TestOtherVersion(t *testing.T) {
	w := newWorld(t, "c")
	w.answering("old", "iomeshage/find/1", found{Name: "f", Size: 1, Version: "v"})
	err := w.hosts["c"].Get(within(t, time.Minute), "f")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "old runs another version of minimega") {
		t.Errorf("got %v", err)
	}
}

// A host that does not list what it has, because it is too much, is named with
// its reason.
func TestTooMuch(t *testing.T) {
	w := newWorld(t, "c")
	w.hub.Join("a").Respond(findProtocol, func(context.Context, string, []byte) ([]byte, error) {
		return json.Marshal(envelope{Refused: refuse(codeBad, "d: more than %d files", maxListed)})
	})
	err := w.hosts["c"].Get(within(t, time.Minute), "d")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "(a: d: more than 40000 files)") {
		t.Errorf("got %v", err)
	}
}

// A directory that is deleted while it comes makes no links afterwards, and its
// row says how far it is meanwhile.
func TestDeleteWhileComing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.join("a", Options{Rate: 8 << 20})
	w.put("d/big", random(20, 30<<20), "a")
	w.put("d/small", []byte("small"), "a")
	w.plant("a", "d/l -> small", "d/e/")
	c := w.join("c", Options{})
	if _, err := c.Start(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		st := c.Status()
		return len(st) == 2 && st[0].Name == "d" && st[0].Total == 5 && st[0].Done == 3 && st[0].Bytes > 5 && st[1].Name == "d/big"
	})
	if _, err := c.Start(t.Context(), "d"); !errors.Is(err, ErrInFlight) {
		t.Errorf("got %v", err)
	}
	if err := c.Delete("d"); err != nil {
		t.Fatal(err)
	}
	if st := c.Status(); len(st) > 0 {
		t.Errorf("%+v", st)
	}
	if got := tree(t, w.path("c", "")); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

// A directory of which only a link is missing is not whole.
func TestLinkMissing(t *testing.T) {
	w := newWorld(t, "a", "c")
	w.plant("a", "d/f", "d/l -> f", "d/e/")
	c := w.hosts["c"]
	w.plant("c", "d/")
	if err := c.mark("d", []*target{{name: "d/l"}, {name: "d/e"}, {name: "d/f"}}); err != nil {
		t.Fatal(err)
	}
	w.plant("c", "d/f")
	if got := c.lacking("d"); !slices.Equal(got, []string{"d/e", "d/l"}) {
		t.Errorf("lacking %q", got)
	}
	if _, err := c.Fetch(within(t, time.Minute), w.path("c", "d")); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(w.path("c", "d/l")); to != "f" || err != nil {
		t.Errorf("%q, %v", to, err)
	}
	if st, err := os.Stat(w.path("c", "d/e")); err != nil || !st.IsDir() {
		t.Error(err)
	}
	w.clean("c")
}
