package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The list of devices is the owner's, and a later daemon leaves it as it is.
func TestDevicesAreShared(t *testing.T) {
	if _, err := os.Stat(filepath.Join(DefaultRoot, "devices", "devices.list")); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and control groups of version 1")
	}
	parent := filepath.Join("minimega", fmt.Sprintf("share%d", os.Getpid()))
	tree, err := Open(DefaultRoot, parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	g, err := tree.Make("one", Limits{Pids: 5})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(DefaultRoot, "devices", parent)
	if _, err := os.Stat(filepath.Join(dir, "one")); !os.IsNotExist(err) {
		t.Errorf("a directory of its own: %v", err)
	}
	if !slices.Contains(g.Enter(), filepath.Join(dir, "tasks")) {
		t.Errorf("does not enter %s: %v", dir, g.Enter())
	}
	before, err := get(dir, "devices.list")
	if err != nil || strings.HasPrefix(before, "a ") || len(strings.Split(before, "\n")) != len(allowed) {
		t.Fatalf("%q, %v", before, err)
	}
	if err := set(dir, "devices.deny", allowed[len(allowed)-1].String()); err != nil { // as if the earlier one had died here
		t.Fatal(err)
	}
	if err := restrict(dir); err != nil {
		t.Fatal(err)
	}
	if after, err := get(dir, "devices.list"); err != nil || after != before {
		t.Errorf("%q, not %q, %v", after, before, err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}
