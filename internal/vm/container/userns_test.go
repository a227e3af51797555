package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Uid
}

// Root inside is nobody outside, and what it writes is that nobody's, but for a
// file system of its own, whose users stay those on the disk.
func TestUserNamespace(t *testing.T) {
	b := newBench(t)
	for _, snapshot := range []bool{true, false} {
		first := userBase(b.base, b.next)
		vol := filepath.Join(b.base, fmt.Sprint("vol", snapshot))
		if err := os.Mkdir(vol, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(vol, 0o777); err != nil {
			t.Fatal(err)
		}
		c := b.config("users", fmt.Sprintf("0 %d %d", first, userRange))
		c.UserNS, c.Snapshot, c.Fifos, c.VolumePaths = true, snapshot, 1, map[string]string{"/vol": vol}
		m := b.launch(c)
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if code, shown := b.wait(m); code != 0 {
			t.Fatalf("snapshot %v: %s", snapshot, shown)
		}
		if uid := ownerOf(t, filepath.Join(vol, "mine")); uid != first {
			t.Errorf("snapshot %v: what it wrote to a volume belongs to %d, not %d", snapshot, uid, first)
		}
		written, want := filepath.Join(b.root, "tmp", "mine"), uint32(1)
		if snapshot {
			written, want = filepath.Join(m.spec.Dir, upperName, "tmp", "mine"), first+1
		}
		if uid := ownerOf(t, written); uid != want {
			t.Errorf("snapshot %v: %s belongs to %d, not %d", snapshot, written, uid, want)
		}
	}
}

// Init runs as that nobody from the start of its program on, without rights.
func TestUserOutside(t *testing.T) {
	b := newBench(t)
	c := b.config("sleep")
	c.UserNS = true
	m := b.start(c)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	first := userBase(b.base, 0)
	if want := fmt.Sprintf("Uid:\t%d\t%d\t%d\t%d\n", first, first, first, first); !strings.Contains(string(text), want) {
		t.Errorf("no %q in %s", want, text)
	}
	mine, err := os.Readlink("/proc/self/ns/user")
	theirs, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", m.Pid()))
	if err := errors.Join(err, err2); err != nil || mine == theirs {
		t.Errorf("user namespaces %s and %s, %v", mine, theirs, err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if s, err := m.Status(t.Context()); s != vm.Paused || err != nil {
		t.Errorf("%v, %v", s, err)
	}
}

// Containers of one daemon do not share users.
func TestUserRanges(t *testing.T) {
	seen := map[uint32]bool{}
	for id := range userRanges {
		first := userBase("/some/base", id)
		if seen[first] || first < userFirst || first+userRange-1 > 1<<31-1 || first%userRange != 0 {
			t.Fatalf("%d: %#x", id, first)
		}
		seen[first] = true
	}
}

// A file system that cannot map users is named.
func TestUsersNotMapped(t *testing.T) {
	b := newBench(t)
	lower, upper, work, top := filepath.Join(b.base, "l"), filepath.Join(b.base, "u"), filepath.Join(b.base, "w"), filepath.Join(b.base, "top")
	for _, dir := range []string{lower, upper, work, top} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", b.root, upper, work)
	if err := unix.Mount("overlay", top, "overlay", 0, options); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(top, 0); err != nil {
			t.Error(err)
		}
	}()
	c := b.config("sleep")
	c.FilesystemPath, c.UserNS = top, true
	m, err := b.engine.Launch(t.Context(), b.spec(c))
	if err == nil {
		b.endAfter(m)
		t.Fatal("launched")
	}
	if !errors.Is(err, errs.Unsupported) || !strings.Contains(err.Error(), top) || !strings.Contains(err.Error(), "map users") {
		t.Error(err)
	}
}

func TestUsersWithoutRoot(t *testing.T) {
	b := newBenchWith(t, Options{Rootless: true})
	c := b.config("sleep")
	c.UserNS = true
	if err := b.engine.Check(t.Context(), c); !errors.Is(err, errs.Unsupported) {
		t.Error(err)
	}
}
