package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Processes that do not stand still in time go on.
func TestFreezeTakenBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "one")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 0\n"} { // as those of a group that never freezes
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := &Tree{unified: filepath.Dir(dir)}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := tree.Group("one").Freeze(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("freeze: %v", err)
	}
	if got, err := get(dir, "cgroup.freeze"); got != "0" || err != nil {
		t.Errorf("cgroup.freeze stays %q, %v", got, err)
	}
}
