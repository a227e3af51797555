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
	f.Close()
}
