package kvm

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

// reap waits for a QEMU of ours that was adopted, and so is nobody's to wait for.
func reap(pid int) { _, _ = unix.Wait4(pid, nil, 0, nil) }

// tinyFS mounts a file system with room for next to nothing.
func tinyFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tiny", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skip("needs to mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
