package initrd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteDir(t *testing.T) {
	top := t.TempDir()
	binary, dir := staticBinary(t), filepath.Join(top, "root")
	if err := os.Mkdir(dir, 0o700); err != nil { // an empty one is taken over
		t.Fatal(err)
	}
	o := Options{Binary: binary, Files: map[string]string{"/etc/more/self": binary}}
	if err := WriteDir(dir, o); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{
		"": os.ModeDir | 0o755, "init": 0o755, "etc": os.ModeDir | 0o755, "proc": os.ModeDir | 0o755,
		"bin/minimega": os.ModeSymlink | 0o777, ContainerMark: 0o644,
	} {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || st.Mode() != mode {
			t.Errorf("%q: %v, %v", name, st, err)
		}
	}
	want, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"init", "etc/more/self"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %v, %d bytes of %d", name, err, len(got), len(want))
		}
	}
	// One that holds something stays as it is, and nothing is left beside it.
	if err := WriteDir(dir, Options{Binary: binary}); err == nil {
		t.Error("a directory that is in use was replaced")
	}
	if err := WriteDir(filepath.Join(top, "no", "root"), o); err == nil {
		t.Error("a directory was made in one that does not exist")
	}
	if err := WriteDir(filepath.Join(top, "other"), Options{Binary: binary, Files: map[string]string{"/x": filepath.Join(top, "missing")}}); err == nil {
		t.Error("a missing file was added")
	}
	if left, err := os.ReadDir(top); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
