package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	maxPath  = 4095 // PATH_MAX without the zero byte
	maxDepth = 512  // directories in each other: removing them needs a descriptor each
)

// tree is a directory that is being filled. All paths in it are looked up as
// by a process that has it as root: links lead nowhere else.
type tree struct {
	root *os.File
	base string // path of root, as the kernel knows it

	last   string // directory of the entry before
	lastFD int    // -1 for none
}

func openTree(dir string) (*tree, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	base, err := os.Readlink(fdPath(int(f.Fd())))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &tree{root: f, base: base, lastFD: -1}, nil
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Close lets go of the directory.
func (t *tree) Close() error {
	t.forget()
	return t.root.Close()
}

// forget closes the directory that was used last.
func (t *tree) forget() {
	if t.lastFD >= 0 {
		_ = unix.Close(t.lastFD) // a descriptor without data to lose
		t.lastFD = -1
	}
}

// clean checks a name from an archive and returns it without a leading slash;
// the root itself is ".".
func clean(name string) (string, error) {
	if len(name) > maxPath || strings.ContainsRune(name, 0) {
		return "", errs.New(errs.Invalid, "bad name %.100q in the archive", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errs.New(errs.Invalid, "%.100q in the archive leaves the root", name)
		}
	}
	c := path.Clean("/" + name)[1:]
	if c == "" {
		return ".", nil
	}
	return c, nil
}

// lookup opens a directory as it is.
func (t *tree) lookup(dir string) (int, error) {
	return unix.Openat2(int(t.root.Fd()), dir, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// dir returns a descriptor of a directory, made with its parents if it is not
// there. It is valid until the next call.
func (t *tree) dir(name string) (int, error) {
	if t.lastFD >= 0 && t.last == name {
		return t.lastFD, nil
	}
	fd, err := t.lookup(name)
	if errors.Is(err, unix.ENOENT) {
		fd, err = t.makeAll(name)
	}
	if err != nil {
		return -1, notDirectory(name, err)
	}
	t.forget()
	t.last, t.lastFD = name, fd
	return fd, nil
}

func notDirectory(name string, err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EEXIST) {
		return errs.New(errs.Invalid, "%s is no directory, and the archive has files in it", name)
	}
	return fmt.Errorf("directory %s: %w", name, err)
}

// makeAll makes a directory and those above it.
func (t *tree) makeAll(name string) (int, error) {
	parent, base := path.Split(name)
	above, err := t.lookup(path.Clean("./" + parent))
	if errors.Is(err, unix.ENOENT) {
		above, err = t.makeAll(path.Clean(parent))
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := t.mkdir(above, base, 0o755); err != nil {
		return -1, err
	}
	return openDirAt(above, base)
}

// mkdir makes a directory unless it would lie too deep.
func (t *tree) mkdir(parent int, name string, mode uint32) error {
	at, err := os.Readlink(fdPath(parent))
	if err != nil || strings.Count(strings.TrimPrefix(at, t.base), "/") >= maxDepth {
		return errs.New(errs.Invalid, "more than %d directories in each other", maxDepth)
	}
	return unix.Mkdirat(parent, name, mode)
}

func openDirAt(parent int, name string) (int, error) {
	return unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// at returns the directory in which an entry lies, and its name there.
func (t *tree) at(name string) (parent int, base string, err error) {
	dir, base := path.Split(name)
	parent, err = t.dir(path.Clean("./" + dir))
	return parent, base, err
}

// what an entry is.
type entrySort int

const (
	nothing entrySort = iota
	directory
	whiteout
	other
)

// sortAt tells what there is under a name.
func sortAt(parent int, name string) (entrySort, error) {
	var st unix.Stat_t
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nothing, nil
	case err != nil:
		return nothing, err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return directory, nil
	case st.Mode&unix.S_IFMT == unix.S_IFCHR:
		return whiteout, nil // no other device is ever made
	}
	return other, nil
}

// replace removes what an earlier entry made in the place of one that is no
// directory.
func (t *tree) replace(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	root, err := os.OpenRoot(fdPath(parent))
	if err != nil {
		return err
	}
	t.last = "" // it may lie in what goes
	return errors.Join(root.RemoveAll(name), root.Close())
}

// Names with which a layer says what of the layers below is gone, see "Layer
// Filesystem Changeset" in the OCI image specification.
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	reservedPrefix = ".wh..wh."
)

// hide makes what the overlay file system takes for a missing file: a device
// 0/0, which needs no privilege. It is there unless the layer itself has the
// file; a directory of the layer then hides the one below.
func (t *tree) hide(parent int, name string) error {
	what, err := sortAt(parent, name)
	switch {
	case err != nil:
		return err
	case what == directory:
		fd, err := openDirAt(parent, name)
		if err != nil {
			return err
		}
		return errors.Join(opaque(fd), unix.Close(fd))
	case what != nothing:
		return nil
	}
	return unix.Mknodat(parent, name, unix.S_IFCHR, 0)
}

// Attributes with which a directory hides all that lies below it. The second
// is that of a user namespace, whose overlays are mounted with `userxattr`.
const (
	opaqueAttr     = "trusted.overlay.opaque"
	opaqueUserAttr = "user.overlay.opaque"
)

func opaque(fd int) error {
	err := unix.Fsetxattr(fd, opaqueAttr, []byte("y"), 0)
	if errors.Is(err, unix.EPERM) {
		err = unix.Fsetxattr(fd, opaqueUserAttr, []byte("y"), 0)
	}
	if err != nil {
		return fmt.Errorf("hide a directory of a lower layer: %w", err)
	}
	return nil
}
