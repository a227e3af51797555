package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bytes"
)

// Whatever an archive says, nothing is made outside the directory, no device
// but whiteouts, and no link of a file to one outside.
func FuzzUnpack(f *testing.F) {
	good := archive(f, dir("d"), file("d/f", "text"), link("l", "/d"), file("l/g", "g"), hard("h", "d/f"), file(".wh.x", ""), file("d/.wh..wh..opq", ""))
	f.Add(good)
	f.Add(gz(f, good))
	f.Add(archive(f, link("l", ".."), file("l/x", "out"), hard("p", "l/secret"), file("../x", "")))
	f.Add(archive(f, link("a", "/"), dir("a/a"), file("a/a", ""), dir("a"), file("a/.wh.a", "")))
	tmp := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		outer, err := os.MkdirTemp(tmp, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(outer)
		root := filepath.Join(outer, "root")
		if err := os.Mkdir(root, 0o700); err != nil {
			t.Fatal(err)
		}
		secret := filepath.Join(outer, "secret")
		if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		limits := Limits{Bytes: 1 << 20, Entries: 100}.withDefaults()
		_, _ = unpack(context.Background(), root, bytes.NewReader(b), limits, nil)
		list, err := os.ReadDir(outer)
		if err != nil || len(list) != 2 {
			t.Fatalf("outside: %v, %v", list, err)
		}
		st, err := os.Lstat(secret)
		if got, err2 := os.ReadFile(secret); err != nil || err2 != nil || string(got) != "secret" || st.Mode() != 0o600 || links(t, secret) != 1 {
			t.Fatalf("secret %q, %v, %v, %v", got, st.Mode(), err, err2)
		}
		err = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Type()&os.ModeDevice != 0 && d.Type()&os.ModeCharDevice == 0 {
				t.Errorf("device %s", p)
			}
			return err
		})
		if err != nil && os.Geteuid() == 0 {
			t.Error(err)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/a/b.tar", "tar:x", "oci:/a/b:tag", "docker-archive:x:y/z:1", "docker://a.b/c:d@sha256:" + strings.Repeat("0", 64), "image:x", "docker:/x", "ftp://x", "oci:", ":", "docker://"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again.String() != r.String() {
			t.Fatalf("%q -> %q -> %q, %v", s, r.String(), again.String(), err)
		}
		if strings.ContainsRune(r.Path+r.Tag, 0) {
			t.Fatalf("%q holds a zero", s)
		}
	})
}

// Layouts and docker archives within a tar archive.
func FuzzFiles(f *testing.F) {
	f.Add(archive(f, file("oci-layout", "{}"), file("index.json", `{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`"}]}`)))
	f.Add(archive(f, file("c.json", `{"rootfs":{"diff_ids":[]}}`), file("l.tar", "x"), file("manifest.json", `[{"Config":"c.json","Layers":["l.tar","../l"]}]`), link("m", "m")))
	tmp := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		dir, err := os.MkdirTemp(tmp, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "x.tar")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewStore(Options{Dir: filepath.Join(dir, "images"), Limits: Limits{Bytes: 1 << 20, Entries: 100}})
		root, err := s.Open(context.Background(), path)
		if err != nil {
			return
		}
		for _, l := range root.Layers {
			if !strings.HasPrefix(l, dir+"/images/layers/") {
				t.Errorf("a layer at %s", l)
			}
		}
		_, _ = root.Program()
		if err := root.Release(); err != nil {
			t.Error(err)
		}
	})
}
