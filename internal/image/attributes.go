package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Limits of extended attributes, those of the kernel or below (xattr(7)).
const (
	maxAttrs     = 64
	maxAttrName  = 255
	maxAttrValue = 64 << 10
	attrRecord   = "SCHILY.xattr." // prefix of their PAX records
)

// attributes are what a file has beside its content.
type attributes struct {
	uid, gid int
	mode     uint32 // permissions, setuid, setgid and sticky bit
	modified time.Time
	extended map[string]string
}

func attributesOf(h *tar.Header) (attributes, error) {
	a := attributes{uid: h.Uid, gid: h.Gid, mode: uint32(h.Mode) & 0o7777, modified: h.ModTime}
	// The greatest number means "do not change" to the kernel.
	if a.uid < 0 || a.gid < 0 || int64(a.uid) >= math.MaxUint32 || int64(a.gid) >= math.MaxUint32 {
		return a, errs.New(errs.Invalid, "bad owner %d:%d", h.Uid, h.Gid)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, attrRecord)
		if !ok || !attrAllowed(name) {
			continue
		}
		if len(a.extended) >= maxAttrs || len(name) > maxAttrName || len(value) > maxAttrValue {
			return a, errs.New(errs.Invalid, "too many or too large extended attributes")
		}
		if a.extended == nil {
			a.extended = map[string]string{}
		}
		a.extended[name] = value
	}
	return a, nil
}

// attrAllowed picks the attributes that are kept: those that mean something
// inside a container. Above all none that direct the overlay file system.
func attrAllowed(name string) bool {
	return name == "security.capability" ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// set gives an open file its attributes: the mode after the owner, whose
// change drops the setuid bit and capabilities.
func (a attributes) set(fd int, owners bool) error {
	if owners {
		if err := unmapped(unix.Fchown(fd, a.uid, a.gid)); err != nil {
			return err
		}
	}
	for name, value := range a.extended {
		if err := unsupported(unix.Fsetxattr(fd, name, []byte(value), 0)); err != nil {
			return fmt.Errorf("attribute %q: %w", name, err)
		}
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), a.times(), 0)
}

// setNamed gives what cannot be opened its attributes; links have no mode.
func (a attributes) setNamed(parent int, name string, owners bool) error {
	if owners {
		if err := unmapped(unix.Fchownat(parent, name, a.uid, a.gid, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(parent, name, a.times(), unix.AT_SYMLINK_NOFOLLOW)
}

func (a attributes) times() []unix.Timespec {
	t := unix.NsecToTimespec(a.nanoseconds())
	return []unix.Timespec{t, t}
}

// nanoseconds is the time of the change, moved into the years that the number
// can hold.
func (a attributes) nanoseconds() int64 {
	s := min(max(a.modified.Unix(), 0), math.MaxInt64/int64(time.Second)-1)
	return s*1e9 + int64(a.modified.Nanosecond())
}

// unmapped passes over owners that a user namespace does not have: the files
// are then its root's.
func unmapped(err error) error {
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// unsupported passes over attributes that the file system or the user
// namespace cannot keep.
func unsupported(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// memory is about what the attributes take.
func (a attributes) memory() int {
	n := 128
	for name, value := range a.extended {
		n += len(name) + len(value) + 64
	}
	return n
}
