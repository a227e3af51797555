package command

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "AB_2": "two words", "_x": "$A"}
	for in, want := range map[string]string{
		"":                            "",
		"plain":                       "plain",
		"$A":                          "1",
		"${A}b$A":                     "1b1",
		"$AB_2.x":                     "two words.x",
		"$_x":                         "$A", // not expanded again
		"a$NONE b":                    "a b",
		"${NONE}":                     "",
		"$(df $A | awk '{print $1}')": "$(df 1 | awk '{print $1}')",
		"{print $(NF-1)}":             "{print $(NF-1)}",
		"$$ $? $* $@ $# $-":           "$$ $? $* $@ $# $-",
		"cost 5$":                     "cost 5$",
		"${":                          "${",
		"${A":                         "${A",
		"${}":                         "${}",
		"${1}${A-b}":                  "${1}${A-b}",
		"$Ä":                          "$Ä",
	} {
		if got := expand(in, func(k string) string { return env[k] }); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$A ${B} $(c) $1", "x")
	f.Add("${", "$A")
	f.Fuzz(func(t *testing.T, s, value string) {
		if got := expand(s, func(string) string { return value }); !strings.Contains(s, "$") && got != s {
			t.Errorf("%q became %q", s, got)
		}
		// With every variable put back as it was, the text is the same but for braces.
		got := expand(s, func(name string) string {
			if name == "" || nameLen(name) != len(name) {
				t.Errorf("asked for %q", name)
			}
			return "$" + name
		})
		if len(got) > len(s) {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestFileArgument(t *testing.T) {
	files := t.TempDir()
	write(t, filepath.Join(files, "a.qc2"), "x")
	write(t, filepath.Join(files, "d", "b"), "x")
	write(t, filepath.Join(files, "sp ace"), "x")
	p := Preprocessor(files, nil)
	for in, want := range map[string]string{
		"file:a.qc2":                   files + "/a.qc2",
		"FILE:d/b":                     files + "/d/b",
		"file:d":                       files + "/d",
		"file:./d/../a.qc2":            files + "/a.qc2",
		"file:sp ace":                  files + "/sp ace",
		"file://" + files + "/d/b":     files + "/d/b",
		"file:":                        "file:",
		"a.qc2":                        "a.qc2",
		"ftp://x/y":                    "ftp://x/y",
		"c:d":                          "c:d",
		`{"execute":"query-version"}`:  `{"execute":"query-version"}`,
		"00:11:22:33:44:55":            "00:11:22:33:44:55",
		"http:":                        "http:",
		"path=file:a.qc2,if=virtio,$$": "path=file:a.qc2,if=virtio,$$",
	} {
		if got, err := p(t.Context(), in); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := p(t.Context(), "file:none"); err == nil || err.Error() != "get none: file not found" {
		t.Errorf("got %v", err)
	}
	for _, in := range []string{"file:../x", "file:/etc/passwd", "file:d/../../x", "file:///etc/passwd", "file:x\x00y"} {
		if got, err := p(t.Context(), in); err == nil || !strings.Contains(err.Error(), "not in the files directory") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	t.Setenv("MM_TEST_IMAGE", "file:a.qc2")
	if got, err := p(t.Context(), "$MM_TEST_IMAGE"); got != files+"/a.qc2" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHTTPArgument(t *testing.T) {
	var hits atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("image"))
	}))
	defer s.Close()
	files := t.TempDir()
	p := Preprocessor(files, nil)
	for range 2 { // the second time it is there
		got, err := p(t.Context(), s.URL+"/images/a%20b.qc2?x=1")
		if got != files+"/images/a b.qc2" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if b, err := os.ReadFile(files + "/images/a b.qc2"); string(b) != "image" || err != nil || hits.Load() != 1 {
		t.Errorf("%q, %v, %d requests", b, err, hits.Load())
	}
	for in, want := range map[string]string{
		s.URL + "/none":   "404",
		s.URL:             "names no file",
		s.URL + "/":       "names no file",
		"http:x":          "names no file",
		"http://[":        "missing ']' in host",
		s.URL + "/images": "is a directory",
	} {
		if got, err := p(t.Context(), in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	if got, err := p(t.Context(), s.URL+"/../../%2e%2e/evil"); got != files+"/evil" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTarArgument(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "root/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "root/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 1}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	write(t, files+"/d/fs.tar", b.String())
	s := httptest.NewServer(http.FileServer(http.Dir(files + "/d")))
	defer s.Close()
	p := Preprocessor(files, nil)
	for in, want := range map[string]string{
		"tar:d/fs.tar":               files + "/d/root",
		"tar:file:d/fs.tar":          files + "/d/root",
		"tar:" + files + "/d/fs.tar": files + "/d/root",
		"tar:" + s.URL + "/fs.tar":   files + "/root",
	} {
		got, err := p(t.Context(), in)
		if got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
		if b, err := os.ReadFile(want + "/f"); string(b) != "x" || err != nil {
			t.Errorf("%q: %q, %v", in, b, err)
		}
	}
	if _, err := p(t.Context(), "tar:none"); err == nil || err.Error() != "get none: file not found" {
		t.Errorf("got %v", err)
	}
}

// No argument becomes a path outside the files directory that was not one before.
func FuzzFileArgument(f *testing.F) {
	files := f.TempDir()
	p := preprocessor{files: files}
	for _, s := range []string{"a", "../a", "/etc/passwd", "//x", "a/../../b", "./.", files + "/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := p.inFiles(name)
		if err != nil {
			return
		}
		if rel, err := filepath.Rel(files, got); err != nil || !filepath.IsLocal(rel) {
			t.Errorf("%q became %q", name, got)
		}
	})
}
