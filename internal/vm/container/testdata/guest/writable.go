package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	actions["writable"] = writable
	actions["vsock"] = vsock
}

// harmless are files of /proc to which everybody may write: they wake who has
// written when something is scarce.
const harmless = "/proc/pressure/"

// writable opens all files of the kernel but those of processes, which are the
// container's own, for writing.
func writable([]string) error {
	var failed []error
	opened := 0
	for _, top := range []string{"/proc", "/sys"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // not even to be read
			}
			if d.IsDir() {
				if _, err := strconv.Atoi(d.Name()); err == nil && filepath.Dir(path) == "/proc" {
					return fs.SkipDir
				}
				return nil
			}
			st, err := os.Lstat(path)
			// Root opens also what nobody can write to.
			if err != nil || !st.Mode().IsRegular() || st.Mode()&0o222 == 0 || strings.HasPrefix(path, harmless) {
				return nil
			}
			opened++
			fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err == nil {
				failed = append(failed, fmt.Errorf("BROKEN OUT: %s can be written", path), unix.Close(fd))
			}
			return nil
		})
		failed = append(failed, err)
	}
	if opened < 100 {
		failed = append(failed, fmt.Errorf("only %d files were tried", opened))
	}
	return errors.Join(failed...)
}

// vsock wants a socket that knows no network namespaces.
func vsock([]string) error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err == nil {
		_ = os.NewFile(uintptr(fd), "vsock").Close()
	}
	return refused("a socket to the host's machine", err, unix.EAFNOSUPPORT)
}
