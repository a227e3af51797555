package image

import (
	"archive/tar"
	"errors"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

func (u *unpacker) symlink(parent int, base string, h *tar.Header) error {
	a, err := attributesOf(h)
	if err != nil {
		return err
	}
	if h.Linkname == "" || len(h.Linkname) > maxPath || strings.ContainsRune(h.Linkname, 0) {
		return errs.New(errs.Invalid, "bad target %.100q of a link", h.Linkname)
	}
	if err := u.replace(parent, base); err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, parent, base); err != nil {
		return err
	}
	return a.setNamed(parent, base, u.owners)
}

func (u *unpacker) fifo(parent int, base string, h *tar.Header) error {
	a, err := attributesOf(h)
	if err != nil {
		return err
	}
	if err := u.replace(parent, base); err != nil {
		return err
	}
	if err := unix.Mknodat(parent, base, unix.S_IFIFO|a.mode, 0); err != nil {
		return err
	}
	return a.setNamed(parent, base, u.owners)
}

// link gives a file of this layer a second name.
func (u *unpacker) link(parent int, base, name string, h *tar.Header) error {
	target, err := clean(h.Linkname)
	if err != nil || target == name {
		return err
	}
	// The directory of the target takes the place of the one that is kept.
	parent, err = unix.FcntlInt(uintptr(parent), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	dir, from := path.Split(target)
	source, err := u.lookup(path.Clean("./" + dir))
	if err != nil {
		return errs.New(errs.Invalid, "a link to %.200q, which is not in the archive: %w", h.Linkname, err)
	}
	defer unix.Close(source)
	what, err := sortAt(source, from)
	if err == nil && what != other {
		err = fs.ErrNotExist
	}
	if err != nil {
		return errs.New(errs.Invalid, "a link to %.200q, which is no file of the archive", h.Linkname)
	}
	if same, err := sameFile(source, from, parent, base); same || err != nil {
		return err
	}
	if err := u.replace(parent, base); err != nil {
		return err
	}
	return unix.Linkat(source, from, parent, base, 0)
}

// sameFile reports whether two names are one file already.
func sameFile(dir1 int, name1 string, dir2 int, name2 string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstatat(dir1, name1, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	err := unix.Fstatat(dir2, name2, &b, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino, err
}
