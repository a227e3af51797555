package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// RemoveAll removes a path and all below it, like os.RemoveAll, but with three
// descriptors and not one for each level: a guest may have made directories so
// deep that there are not enough. What is below the second level is moved up.
func RemoveAll(path string) error {
	r := remover{}
	if err := r.remove(unix.AT_FDCWD, path); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

type remover struct{ next uint64 }

// remove removes an entry of a directory. Links are not followed.
func (r *remover) remove(dir int, name string) error {
	top, err := openToRemove(dir, name)
	if top == nil || err != nil {
		return err
	}
	defer top.Close()
	err = each(top, func(name string) error {
		sub, err := openToRemove(int(top.Fd()), name)
		if sub == nil || err != nil {
			return err
		}
		defer sub.Close()
		if err := each(sub, func(name string) error { return r.moveUp(sub, top, name) }); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return unix.Unlinkat(int(top.Fd()), name, unix.AT_REMOVEDIR)
	})
	if err != nil {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// moveUp removes an entry of sub or, if that is a directory with something in
// it, moves it to top.
func (r *remover) moveUp(sub, top *os.File, name string) error {
	err := unix.Unlinkat(int(sub.Fd()), name, 0)
	if isDir(err) {
		err = unix.Unlinkat(int(sub.Fd()), name, unix.AT_REMOVEDIR)
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	for {
		r.next++
		err := unix.Renameat2(int(sub.Fd()), name, int(top.Fd()), "minimega-removes-"+strconv.FormatUint(r.next, 10), unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
}

// openToRemove opens a directory; anything else it removes, and returns nil.
func openToRemove(dir int, name string) (*os.File, error) {
	err := unix.Unlinkat(dir, name, 0)
	if !isDir(err) {
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return nil, err
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// isDir tells what unlink says of a directory, which with some file systems is
// EPERM.
func isDir(err error) bool { return errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) }

// each does something with the entries of a directory until there are none.
func each(dir *os.File, do func(name string) error) error {
	for {
		if _, err := dir.Seek(0, 0); err != nil { // what is removed may displace others
			return err
		}
		names, err := dir.Readdirnames(1000)
		if len(names) == 0 {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		for _, name := range names {
			if err := do(name); err != nil {
				return err
			}
		}
	}
}
