package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteVolatile is WriteFile for what is worth nothing after a restart of the
// host, such as the state of a process. ext4 and others begin to write a file
// to the disk as soon as it is renamed over another (auto_da_alloc in ext4(5)),
// which takes longer than all the rest and is waited for when the file is
// removed; files that change places are written when there is time.
func WriteVolatile(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if perm != 0o600 { // which it has
		err = errors.Join(err, f.Chmod(perm))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = exchange(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// WriteFirst makes a file that nobody reads yet, or replaces one as
// WriteVolatile does. Whoever finds it after a crash may see a part of it.
func WriteFirst(path string, data []byte, perm os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, fs.ErrExist) {
		return WriteVolatile(path, data, perm)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

// exchange puts a file in the place of another, if there is one, which is removed.
func exchange(from, to string) error {
	swap := func() error { return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE) }
	err := swap()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // none there, or a file system that cannot
		return os.Rename(from, to)
	case err != nil:
		return &os.LinkError{Op: "exchange", Old: from, New: to, Err: err}
	}
	if err := unix.Unlink(from); err != nil { // a directory
		return errors.Join(&os.LinkError{Op: "replace", Old: from, New: to, Err: err}, swap())
	}
	return nil
}
