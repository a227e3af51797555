package fetch

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"minimega/internal/errs"
)

// archive makes a tar of headers; a regular file's content is its Linkname.
func archive(t testing.TB, hs ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Uid, h.Gid, h.ModTime = os.Getuid(), os.Getgid(), time.Unix(1000000000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dir(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name + "/"} }
func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}
func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// place writes an archive into a new directory and returns both paths.
func place(t testing.TB, b []byte) (where, path string) {
	t.Helper()
	where = t.TempDir()
	path = filepath.Join(where, "a.tar")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return where, path
}

func TestUntar(t *testing.T) {
	setuid := file("./fs/bin/su", "su")
	setuid.Mode = 0o4755
	closed := dir("fs/closed")
	closed.Mode = 0o500
	b := archive(t, dir("."), dir("./fs"), closed, file("fs/closed/f", "in"), setuid, file("fs/a/b/c", "deep"),
		link("fs/abs", "/etc/passwd"), link("fs/rel", "bin/su"), hard("fs/hard", "fs/a/b/c"),
		tar.Header{Typeflag: tar.TypeChar, Name: "fs/null", Devmajor: 1, Devminor: 3}, file("fs/bin/su2", ""))
	where, path := place(t, b)
	got, err := Untar(t.Context(), path)
	if err != nil || got != where+"/fs" {
		t.Fatalf("%q, %v", got, err)
	}
	if got := names(t, where); got != ". a.tar fs fs/a fs/a/b fs/a/b/c fs/abs fs/bin fs/bin/su fs/bin/su2 fs/closed fs/closed/f fs/hard fs/rel" {
		t.Errorf("files %s", got)
	}
	if st, err := os.Stat(where + "/fs/bin/su"); err != nil || st.Mode() != 0o755|os.ModeSetuid || st.ModTime().Unix() != 1000000000 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if st, err := os.Stat(where + "/fs/closed"); err != nil || st.Mode().Perm() != 0o500 || st.ModTime().Unix() != 1000000000 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if to, err := os.Readlink(where + "/fs/abs"); to != "/etc/passwd" || err != nil {
		t.Errorf("%q, %v", to, err)
	}
	if c, err := os.ReadFile(where + "/fs/hard"); string(c) != "deep" || err != nil {
		t.Errorf("%q, %v", c, err)
	}
	// What is there stays as it is.
	if err := os.Remove(where + "/fs/hard"); err != nil {
		t.Fatal(err)
	}
	if got, err := Untar(t.Context(), path); err != nil || got != where+"/fs" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := os.Stat(where + "/fs/hard"); err == nil {
		t.Error("unpacked twice")
	}
}

func TestUntarCompressed(t *testing.T) {
	b := archive(t, dir("fs"), file("fs/f", "x"))
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	where, path := place(t, z.Bytes())
	if got, err := Untar(t.Context(), path); got != where+"/fs" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	where, path = place(t, e.EncodeAll(b, nil))
	if got, err := Untar(t.Context(), path); got != where+"/fs" || err != nil {
		t.Errorf("zstd: %q, %v", got, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	xz := exec.Command("xz", "--stdout")
	xz.Stdin = bytes.NewReader(b)
	packed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	where, path = place(t, packed)
	if got, err := Untar(t.Context(), path); got != where+"/fs" || err != nil {
		t.Errorf("xz: %q, %v", got, err)
	}
	_, path = place(t, []byte("\xfd7zXZ\x00 and so on"))
	if _, err := Untar(t.Context(), path); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "xz: ") {
		t.Errorf("of what is no xz: %v", err)
	}
}

// Archives that must not be unpacked leave nothing behind, inside or outside.
func TestUntarRefused(t *testing.T) {
	long := strings.Repeat("x/", 3000) + "x"
	for what, b := range map[string][]byte{
		"two directories":     archive(t, dir("a"), dir("b")),
		"a file at the top":   archive(t, file("a", "x")),
		"a second at the top": archive(t, dir("a"), file("b", "x")),
		"nothing":             archive(t),
		"empty":               nil,
		"no archive":          bytes.Repeat([]byte("garbage "), 200),
		"cut short":           archive(t, dir("a"), file("a/b", strings.Repeat("x", 5000)))[:3000],
		"dots":                archive(t, dir("a"), file("a/../../evil", "x")),
		"absolute":            archive(t, file("/evil/x", "x")),
		"parent":              archive(t, dir("../evil")),
		"link out":            archive(t, dir("a"), link("a/l", "/tmp"), file("a/l/evil", "x")),
		"link up":             archive(t, dir("a"), link("a/l", "../../.."), file("a/l/evil", "x")),
		"hard link out":       archive(t, dir("a"), hard("a/l", "../../../../../../../../etc/passwd")),
		"hard link via link":  archive(t, dir("a"), link("a/l", "/etc"), hard("a/p", "a/l/passwd")),
		"long name":           archive(t, dir("a"), file("a/"+long, "x")),
	} {
		where, path := place(t, b)
		if got, err := Untar(t.Context(), path); err == nil {
			t.Errorf("%s: unpacked to %s", what, got)
		} else if strings.Contains(what, "top") && err.Error() != "unable to handle tar without a single top-level directory" {
			t.Errorf("%s: got %v", what, err)
		} else if what == "cut short" && (errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "the archive is cut off")) {
			t.Errorf("%s: got %v", what, err)
		}
		if got := names(t, where); got != ". a.tar" {
			t.Errorf("%s: left %s", what, got)
		}
	}
}

func TestUntarHuge(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "a/f", Size: 1 << 60}); err != nil {
		t.Fatal(err)
	}
	where, path := place(t, b.Bytes())
	if _, err := Untar(t.Context(), path); !errors.Is(err, errs.Resource) {
		t.Errorf("got %v", err)
	}
	if got := names(t, where); got != ". a.tar" {
		t.Errorf("left %s", got)
	}
}

// A small archive may hold a file of any size; it takes no room, and no longer
// than the caller waits.
func TestUntarSparse(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar here")
	}
	src := t.TempDir()
	if out, err := exec.Command("sh", "-c", "cd "+src+" && mkdir a && truncate -s 256M a/f && tar -cSf a.tar a && rm -r a").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := Untar(t.Context(), src+"/a.tar"); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(src + "/a/f")
	if err != nil || st.Size() != 256<<20 || st.Sys().(*syscall.Stat_t).Blocks > 1024 {
		t.Errorf("%+v, %v", st.Sys(), err)
	}
}

func TestUntarCancelled(t *testing.T) {
	where, path := place(t, archive(t, dir("a"), file("a/b", "x")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Untar(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := names(t, where); got != ". a.tar" {
		t.Errorf("left %s", got)
	}
}

// What GNU tar packs comes out equal.
func TestUntarOfRealTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("no tar here")
	}
	src := t.TempDir()
	if out, err := exec.Command("sh", "-c", "mkdir -p "+src+"/fs/sub && cd "+src+`/fs && echo hi > f && ln f g && ln -s sub/x l && truncate -s 3M sparse && echo end >> sparse && touch "a b" && chmod 2750 sub && tar -C .. -cSf ../a.tar fs && tar -C .. -cjf ../b.tar fs`).CombinedOutput(); err != nil {
		if _, lookErr := exec.LookPath("bzip2"); lookErr != nil {
			t.Skip("no bzip2 here")
		}
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"a.tar", "b.tar"} {
		where := t.TempDir()
		path := filepath.Join(where, name)
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Untar(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("diff", "-r", "--no-dereference", src+"/fs", where+"/fs").CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if st, err := os.Stat(where + "/fs/sub"); err != nil || st.Mode() != os.ModeDir|os.ModeSetgid|0o750 {
			t.Errorf("%v, %v", st.Mode(), err)
		}
	}
}

// Whatever the archive, what is made lies in the one directory it names.
func FuzzUntar(f *testing.F) {
	f.Add(archive(f, dir("a"), file("a/b", "x"), link("a/l", "b"), hard("a/h", "a/b")))
	f.Add(archive(f, dir("a"), file("a/../../evil", "x")))
	f.Add(archive(f, dir("a"), link("a/l", "/tmp"), file("a/l/evil", "x")))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Add([]byte("BZh9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		outer := t.TempDir()
		where := filepath.Join(outer, "in")
		if err := os.Mkdir(where, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(where, ".archive")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a sparse file may be long
		defer cancel()
		got, err := Untar(ctx, path)
		entries, _ := os.ReadDir(where)
		want := 1
		if err == nil && got != where {
			want = 2
		}
		if len(entries) != want {
			t.Errorf("%v, %q: %v", err, got, entries)
		}
		if up, _ := os.ReadDir(outer); len(up) != 1 {
			t.Errorf("outside: %v", up)
		}
	})
}
