package image

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// layered unpacks layers, lowest first.
func layered(t *testing.T, archives ...[]byte) *Root {
	t.Helper()
	needRoot(t)
	r := &Root{}
	for _, b := range archives {
		dir, _, err := extract(t, b, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		r.Layers = append(r.Layers, dir)
	}
	return r
}

// The stack shows what the overlay file system shows.
func TestStackIsOverlay(t *testing.T) {
	r := layered(t,
		archive(t, dir("d"), file("d/low", "1"), file("gone", "1"), file("both", "low"), link("lib", "usr/lib"), file("usr/lib/a", "a"), dir("o"), file("o/hidden", "h"),
			file("dir-to-file/x", "x"), file("file-to-dir", "f"), link("up", "../../etc/y"), file("etc/y", "y"), link("loop", "loop"), link("abs", "/usr/lib/a"), file("e/f/g", "g")),
		archive(t, file("d/high", "2"), file(".wh.gone", ""), file("both", "high"), file("usr/lib/b", "b"), dir("o"), file("o/.wh..wh..opq", ""), file("o/shown", "s"),
			file("dir-to-file", "f"), file("file-to-dir/x", "x"), file("e/.wh.f", ""), link("dir-link", "d")),
		archive(t, file("top", "t"), dir("e"), dir("e/f"), file("e/f/new", "n")))
	at := t.TempDir()
	lower := []string{r.Layers[2], r.Layers[1], r.Layers[0]}
	options := "lowerdir=" + strings.Join(lower, ":")
	if inUserSpace(t) {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	root, err := os.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	found := 0
	for _, name := range []string{"d/low", "d/high", "gone", "both", "lib/a", "lib/b", "lib/../../lib/a", "o/hidden", "o/shown", "dir-to-file", "dir-to-file/x", "file-to-dir", "file-to-dir/x",
		"up", "loop", "loop/x", "abs", "e/f/g", "e/f/new", "top", "top/x", "dir-link/low", "dir-link/high", "dir-link/../both", "../../both", "none", "none/x", "/", "d", "lib"} {
		want := "none"
		fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{Flags: unix.O_RDONLY, Resolve: unix.RESOLVE_IN_ROOT})
		if err == nil {
			f := os.NewFile(uintptr(fd), name)
			want = "directory"
			if text, err := os.ReadFile(fdPath(fd)); err == nil {
				want = "file " + string(text)
			}
			f.Close()
		}
		got := "none"
		if host, st, err := r.stack().find(name); err == nil {
			found++
			got = "directory"
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				text, err := os.ReadFile(host)
				if err != nil {
					t.Fatal(err)
				}
				got = "file " + string(text)
			}
		}
		if got != want {
			t.Errorf("%s: %s, and for the kernel %s", name, got, want)
		}
	}
	if found < 15 {
		t.Errorf("only %d found", found)
	}
}

// What an image says of its layers cannot lead to files of the host.
func TestStackStaysInside(t *testing.T) {
	r := layered(t, archive(t, dir("etc"), link("etc/passwd", "/../../../../etc/passwd"), link("out", "../../../../../../../../")))
	if b, err := r.stack().read("/etc/passwd", 100); err == nil {
		t.Errorf("read %q", b)
	}
	if host, _, err := r.stack().find("out/etc/hostname"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found %s, %v", host, err)
	}
}

func TestUsers(t *testing.T) {
	r := layered(t, archive(t, file("etc/passwd", "root:x:0:0::/root:\nweb:x:33:34::/var/www:/bin/sh\nbroken\nbad:x:no:0\nmax:x:4294967295:0:::\n"),
		file("etc/group", "root:x:0:\nwww:x:34:\nlog:x:4:web,other\nssl:x:5:web\n")))
	for spec, want := range map[string]User{
		"":          {Home: "/root"},
		"0":         {Home: "/root"},
		"root":      {Home: "/root"},
		"web":       {UID: 33, GID: 34, Groups: []uint32{4, 5}, Home: "/var/www"},
		"33":        {UID: 33, GID: 34, Groups: []uint32{4, 5}, Home: "/var/www"},
		"web:log":   {UID: 33, GID: 4, Home: "/var/www"},
		"1234":      {UID: 1234, Home: "/"},
		"1234:www":  {UID: 1234, GID: 34, Home: "/"},
		"1234:5678": {UID: 1234, GID: 5678, Home: "/"},
	} {
		got, err := r.stack().user(spec)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%q: %v %s", spec, err, d)
		}
	}
	for _, spec := range []string{"nobody", "bad", "max", "web:none", "4294967295", "-1", "4294967296"} {
		if got, err := r.stack().user(spec); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %+v, %v", spec, got, err)
		}
	}
	if got, err := layered(t, archive(t)).stack().user("7:8"); err != nil || got.UID != 7 || got.GID != 8 {
		t.Errorf("without files: %+v, %v", got, err)
	}
}

func TestPrograms(t *testing.T) {
	run := file("opt/bin/run", "x")
	run.Mode = 0o755
	r := layered(t, archive(t, run, file("bin/text", "not executable"), dir("bin/dir"), link("usr/bin/ln", "/opt/bin/run")))
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"absolute":  {Config{Cmd: []string{"/opt/bin/run"}}, "/opt/bin/run"},
		"not there": {Config{Cmd: []string{"/none"}}, "/none"}, // the engine says so, better
		"relative":  {Config{Cmd: []string{"./run"}, WorkingDir: "/opt/bin"}, "/opt/bin/run"},
		"in PATH":   {Config{Entrypoint: []string{"run"}, Env: []string{"PATH=/bin:/opt/bin"}}, "/opt/bin/run"},
		"by a link": {Config{Cmd: []string{"ln"}}, "/usr/bin/ln"},
		"escaping":  {Config{Cmd: []string{"../../../run"}, WorkingDir: "/opt"}, "/run"},
	} {
		r.Config = c.config
		p, err := r.Program()
		if err != nil || p.Args[0] != c.want {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for _, cmd := range []string{"text", "dir", "none"} {
		r.Config = Config{Cmd: []string{cmd}}
		if p, err := r.Program(); !errors.Is(err, errs.NotFound) {
			t.Errorf("%s: %+v, %v", cmd, p, err)
		}
	}
	for _, c := range []Config{{}, {Cmd: []string{""}}} {
		r.Config = c
		if p, err := r.Program(); p != nil || err != nil {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}
