package inject

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// root is a mounted file system. Its content is hostile: every path is
// resolved by the kernel as if the file system were all there is
// (RESOLVE_IN_ROOT, see openat2(2)), so that no link leads out of it.
type root struct{ fd int }

func openRoot(dir string) (*root, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &root{fd}, nil
}

func (r *root) close() error { return unix.Close(r.fd) }

// clean makes a path of the image relative to its root, "." for the root.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

func (r *root) open(name string, flags int, mode uint32) (int, error) {
	how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(r.fd, name, how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open in the image", Path: "/" + name, Err: err}
		}
		return fd, nil
	}
}

// isDir reports whether a path is a directory, links followed.
func (r *root) isDir(name string) bool {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// directory opens a directory, which is made if it is missing, with those above.
func (r *root) directory(name string) (int, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := r.directory(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	err = unix.Mkdirat(parent, path.Base(name), 0o755)
	if errors.Is(err, unix.EEXIST) {
		return -1, fmt.Errorf("/%s is a link that leads nowhere in the image", name)
	}
	if err != nil {
		return -1, &os.PathError{Op: "make in the image", Path: "/" + name, Err: err}
	}
	return r.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// put copies a file or a tree of this host into the image, as `cp -r` does: into
// dst if that is a directory, else to that name.
func (r *root) put(src, dst string) error {
	dst = clean(dst)
	if r.isDir(dst) {
		dst = clean(path.Join(dst, filepath.Base(src)))
	}
	parent, err := r.directory(path.Dir(dst))
	if err != nil {
		return err
	}
	_ = unix.Close(parent)
	info, err := os.Stat(src) // a link that is named means what it points to
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return r.putFile(src, dst)
	}
	top, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	return filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		return r.putEntry(p, clean(path.Join(dst, filepath.ToSlash(rel))), e)
	})
}

func (r *root) putEntry(src, dst string, e fs.DirEntry) error {
	switch e.Type() {
	case fs.ModeDir:
		fd, err := r.directory(dst)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case fs.ModeSymlink:
		return r.putLink(src, dst)
	case 0:
		return r.putFile(src, dst)
	}
	return fmt.Errorf("%s is neither file, directory nor link", src)
}

func (r *root) putLink(src, dst string) error {
	to, err := os.Readlink(src)
	if err != nil {
		return err
	}
	parent, err := r.directory(path.Dir(dst))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Unlinkat(parent, path.Base(dst), 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "replace in the image", Path: "/" + dst, Err: err}
	}
	if err := unix.Symlinkat(to, parent, path.Base(dst)); err != nil {
		return &os.PathError{Op: "link in the image", Path: "/" + dst, Err: err}
	}
	return nil
}

// putFile writes a file. A new one gets the permissions of the source, one
// that is replaced keeps its own.
func (r *root) putFile(src, dst string) error {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", src)
	}
	out, err := r.create(dst, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// create opens a file for writing from its start. Whatever is there that is no
// plain file is refused: a guest may have put a pipe or worse in the way.
func (r *root) create(name string, perm fs.FileMode) (*os.File, error) {
	fd, err := r.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	fresh := err == nil
	if errors.Is(err, unix.EEXIST) {
		fd, err = r.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_NONBLOCK, uint32(perm))
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "/"+name)
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("/%s in the image is no regular file", name)
	case fresh:
		err = unix.Fchmod(fd, uint32(perm))
		if errors.Is(err, unix.EPERM) { // FAT has none
			err = nil
		}
	default:
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// remove removes a file or tree; it fails with fs.ErrNotExist if there is none.
func (r *root) remove(name string) error {
	name = clean(name)
	if name == "." {
		return errors.New("the root of the image cannot be deleted")
	}
	parent, err := r.open(path.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := removeAt(parent, path.Base(name)); err != nil {
		return &os.PathError{Op: "delete in the image", Path: "/" + name, Err: err}
	}
	return nil
}

// removeAt follows no links.
func removeAt(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	names, err := dir.Readdirnames(-1)
	for _, n := range names {
		if err != nil {
			break
		}
		err = removeAt(fd, n)
	}
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
}
