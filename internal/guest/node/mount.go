package node

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type mount struct {
	kind, at, options string
	flags             uintptr
}

// mountAll mounts what programs expect of a Linux system.
func mountAll() []error {
	var bad []error
	for _, m := range []mount{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			bad = append(bad, err)
			continue
		}
		err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.options)
		if err != nil && err != unix.EBUSY { // busy: mounted already
			bad = append(bad, fmt.Errorf("mount %s: %w", m.at, err))
		}
	}
	return append(bad, stdLinks()...)
}

func stdLinks() []error {
	var bad []error
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !os.IsExist(err) {
			bad = append(bad, err)
		}
	}
	return bad
}
