package host

import (
	"os"
	"path/filepath"
	"testing"
)

// A new file and one that is there, and a failure that leaves nothing.
func TestWriteVolatile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, text := range []string{"BUILDING", "RUNNING", "QUIT", "QUIT"} {
		if err := WriteVolatile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Fatalf("%q, %v, not %q", got, err, text)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
			t.Fatalf("mode %v, %v", st.Mode(), err)
		}
	}
	for _, text := range []string{"first", "second"} {
		if err := WriteFirst(filepath.Join(dir, "name"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "name")); err != nil || string(got) != text {
			t.Fatalf("%q, %v, not %q", got, err, text)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteVolatile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if st, err := os.Stat(filepath.Join(dir, "taken")); err != nil || !st.IsDir() {
		t.Errorf("the directory: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 {
		t.Errorf("left: %v, %v", list, err)
	}
}
