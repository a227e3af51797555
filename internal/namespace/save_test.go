package namespace

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"minimega/internal/errs"
)

func TestClaimPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".lab.part")
	if err := os.MkdirAll(filepath.Join(path, "left/behind"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := claimPart(path)
	if err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 0 {
		t.Errorf("of a killed daemon: %v", entries)
	}
	if _, err := claimPart(path); !errors.Is(err, errs.State) {
		t.Errorf("claimed twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = claimPart(path); err != nil {
		t.Fatal(err)
	}

	// The next daemon removes what nobody is writing, and nothing else.
	dir := filepath.Dir(path)
	other := filepath.Join(dir, ".other.part", "left")
	kept := []string{path, filepath.Join(dir, "done"), filepath.Join(dir, ".link.part"), filepath.Join(dir, "done", "lab.part")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(other, 0o700))
	must(os.MkdirAll(kept[3], 0o700))
	must(os.Symlink("done", kept[2]))
	must(dropParts(dir))
	if _, err := os.Lstat(filepath.Dir(other)); err == nil {
		t.Error("half a save is left")
	}
	for _, path := range kept {
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	f.Close()
	must(dropParts(filepath.Join(dir, "none")))
}
