package record

import (
	"context"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/pkg/vnc"
)

// killed copies a recording as it is on disk, the last bytes torn off, and
// notes it in a journal as its manager would have.
func killed(t *testing.T, kind, path string, torn int, vm *machine, started time.Time) (dir, copied string) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied = filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, file[:len(file)-torn], 0o644); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "journal")
	_, err = journal.Open(dir).Add(saved{Kind: kind, Namespace: vm.Namespace, Name: vm.Name, VM: vm.ID, Path: copied, Started: started})
	if err != nil {
		t.Fatal(err)
	}
	return dir, copied
}

// restored takes up the one recording of a journal.
func restored(t *testing.T, dir string, vm *machine) *Manager {
	t.Helper()
	m := Open(dir, quiet())
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	n, err := m.Restore(t.Context(), func(id int) (Target, error) {
		if id != vm.ID {
			return Target{}, errs.New(errs.NotFound, "no VM %d", id)
		}
		return vm.Target, nil
	})
	if n != 1 || err != nil {
		t.Fatalf("%d restored, %v", n, err)
	}
	return m
}

func TestRestoreFB(t *testing.T) {
	vm := newMachine(t, "vm", 64, 48)
	first := newManager(t)
	path := filepath.Join(t.TempDir(), "a.fb")
	started := time.Now()
	if err := first.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	vm.Screen.Draw(func(img *image.RGBA) { noise(img) })
	pause(t, 1500*time.Millisecond) // past a flush
	eventually(t, func() bool { return first.List()[0].Items > 0 && pictures(t, path) > 0 })
	dir, copied := killed(t, TypeFB, path, 1, vm, started)
	m := restored(t, dir, vm)
	if l := m.List(); len(l) != 1 || l[0].Filename != copied {
		t.Errorf("list: %+v", l)
	}
	vm.Screen.Draw(func(img *image.RGBA) { noise(img) })
	vm.recorded(t, m)
	if err := m.Stop("fb", vm.Namespace, vm.Name); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(started)
	updates, end, _ := decode(t, copied)
	if updates < 2 || end < 1500*time.Millisecond || end > whole {
		t.Errorf("%d updates, end %v of %v", updates, end, whole)
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		t.Errorf("left in the journal: %v", left)
	}
}

func TestRestoreKB(t *testing.T) {
	vm := newMachine(t, "vm", 64, 48)
	first := newManager(t)
	path := filepath.Join(t.TempDir(), "a.kb")
	if err := first.RecordKB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	press := func(key uint32) {
		c := client(t, vm.Proxy)
		if err := c.Key(vnc.KeyEvent{Down: true, Keysym: key}); err != nil {
			t.Fatal(err)
		}
	}
	lines := func(path string) int {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "KeyEvent")
	}
	press('a')
	press('b')
	eventually(t, func() bool { return lines(path) == 2 })
	dir, copied := killed(t, TypeKB, path, 3, vm, time.Now())
	m := restored(t, dir, vm)
	press('c')
	eventually(t, func() bool { return lines(copied) == 2 }) // of b only a part was written
	if err := m.Stop("kb", vm.Namespace, vm.Name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(copied)
	if err != nil || strings.Count(string(text), "\n") != 2 || !strings.HasSuffix(string(text), "\n") {
		t.Errorf("%q, %v", text, err)
	}
}

// A recording that cannot go on is named, its file is readable, and it is not
// tried again.
func TestRestoreGone(t *testing.T) {
	vm := newMachine(t, "vm", 64, 48)
	first := newManager(t)
	path := filepath.Join(t.TempDir(), "a.fb")
	if err := first.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	pause(t, 200*time.Millisecond)
	dir, copied := killed(t, TypeFB, path, 0, vm, time.Now())
	m := Open(dir, quiet())
	n, err := m.Restore(t.Context(), func(int) (Target, error) { return Target{}, errs.New(errs.NotFound, "its VM has gone") })
	if n != 0 || err == nil || !strings.Contains(err.Error(), copied) || !strings.Contains(err.Error(), "its VM has gone") {
		t.Errorf("%d, %v", n, err)
	}
	decode(t, copied)
	if n, err := m.Restore(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is dropped is said, its file stays, and nothing goes on.
func TestForget(t *testing.T) {
	dir, copied := filepath.Join(t.TempDir(), "journal"), filepath.Join(t.TempDir(), "a.fb")
	if err := os.WriteFile(copied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{TypeFB, TypeKB} {
		if _, err := journal.Open(dir).Add(saved{Kind: kind, Namespace: "ns", Name: "vm", VM: 3, Path: copied}); err != nil {
			t.Fatal(err)
		}
	}
	m := Open(dir, quiet())
	lines, err := m.Forget()
	if err != nil || !slices.Equal(lines, []string{"fb recording of VM vm to " + copied, "kb recording of VM vm to " + copied}) {
		t.Errorf("%q, %v", lines, err)
	}
	if _, err := os.Stat(copied); err != nil {
		t.Error(err)
	}
	if n, err := m.Restore(t.Context(), nil); n != 0 || err != nil {
		t.Errorf("%d go on, %v", n, err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
