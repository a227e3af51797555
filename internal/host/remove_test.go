package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRemoveAll(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	path := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.MkdirAll(path("tree/a/b/c/d"), 0o755), os.MkdirAll(path("tree/x/b/c/d"), 0o700), os.MkdirAll(path("tree/minimega-removes-1/y/z"), 0o700),
		os.Mkdir(outside, 0o755), os.WriteFile(filepath.Join(outside, "file"), nil, 0o644),
		os.Symlink(outside, path("tree/link")), os.Symlink(outside, path("tree/a/b/link")), os.Symlink("../../../../outside/file", path("tree/a/b/c/d/link")),
		unix.Mkfifo(path("tree/a/fifo"), 0o600), os.WriteFile(path("file"), nil, 0o600), os.Symlink(outside, path("link")),
	)
	for i := range 1100 {
		err = errors.Join(err, os.WriteFile(path("tree/x/b/"+strings.Repeat("f", 1+i%200)+filepath.Base(os.TempDir())+string(rune('a'+i/200))), nil, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tree", "file", "link", "none", "none/below"} {
		if err := RemoveAll(path(name)); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path(name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

// A tree deeper than there are descriptors.
func TestRemoveAllDeep(t *testing.T) {
	const limit, depth = 60, 400
	top := filepath.Join(t.TempDir(), "deep")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		err := unix.Mkdirat(fd, "d", 0o755)
		below := -1
		if err == nil {
			below, err = unix.Openat(fd, "d", unix.O_PATH|unix.O_DIRECTORY, 0)
		}
		unix.Close(fd)
		if fd = below; err != nil {
			t.Fatal(err)
		}
	}
	unix.Close(fd)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}()
	if err := RemoveAll(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// What cannot be removed is an error, and not tried for ever.
func TestRemoveAllBusy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	top := t.TempDir()
	at := filepath.Join(top, "a", "b", "c")
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	err := RemoveAll(filepath.Join(top, "a"))
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "a") {
		t.Errorf("a mount in it: %v", err)
	}
	if err := unix.Unmount(at, 0); err != nil {
		t.Error(err)
	}
}
