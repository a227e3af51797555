package basedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// maxLinks bounds how many symbolic links a path may go through (path_resolution(7)).
const maxLinks = 40

// secure makes the directory, or checks that it is ours alone, and gives it
// its mode: 0700, or 2750 with the group gid (-1: none).
func secure(path string, gid int) error {
	if err := checkParents(path); err != nil {
		return err
	}
	made, err := makeDir(path)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errs.Wrap(errs.Permission, fmt.Errorf("base directory %s: %w", path, whyNotOpen(path, err)))
	}
	dir := os.NewFile(uintptr(fd), path)
	if err := secureOpen(dir, made, gid); err != nil {
		return errors.Join(err, dir.Close())
	}
	return dir.Close()
}

// secureOpen checks and sets owner and mode of the open directory.
func secureOpen(dir *os.File, made bool, gid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("base directory %s: %w", dir.Name(), err)
	}
	if err := checkOwner(dir.Name(), st); err != nil {
		return err
	}
	want := uint32(0o700)
	if gid >= 0 {
		want = unix.S_ISGID | 0o750
	}
	if st.Mode&0o7777 == want && (gid < 0 || int(st.Gid) == gid) {
		return nil
	}
	if !made && st.Mode&0o077&^(want&0o077) != 0 {
		if err := checkContent(dir, st); err != nil {
			return err
		}
	}
	if gid >= 0 {
		if err := dir.Chown(-1, gid); err != nil {
			return errs.Wrap(errs.Permission, fmt.Errorf("base directory: %w", err))
		}
	}
	// Fchmod and not File.Chmod, whose mode bits are Go's own.
	if err := unix.Fchmod(int(dir.Fd()), want); err != nil {
		return errs.Wrap(errs.Permission, fmt.Errorf("base directory: chmod %s: %w", dir.Name(), err))
	}
	return nil
}

// checkOwner refuses a directory in which others could have put things.
func checkOwner(path string, st unix.Stat_t) error {
	if int(st.Uid) != os.Geteuid() {
		return errs.WithRemedy(errs.New(errs.Permission, "base directory %s belongs to user %s", path, userName(st.Uid)),
			"choose another with -base")
	}
	if st.Mode&0o002 != 0 {
		return errs.WithRemedy(errs.New(errs.Permission, "base directory %s can be written by every user (mode %04o)", path, st.Mode&0o7777),
			"choose another with -base, or take that permission away")
	}
	return nil
}

// checkContent refuses to close a directory to others that is not a base
// directory: it would lock them out of what they share.
func checkContent(dir *os.File, st unix.Stat_t) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("base directory: %w", err)
	}
	for _, n := range names {
		if n == SocketName || n == PidName || n == lockName {
			return nil
		}
	}
	if len(names) == 0 {
		return nil
	}
	return errs.WithRemedy(errs.New(errs.Permission,
		"base directory %s holds other files and is open to other users (mode %04o)", dir.Name(), st.Mode&0o7777),
		"choose a directory of its own with -base, or make it private with chmod 700")
}

// makeDir makes the directory and its parents, and reports whether it did.
func makeDir(path string) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("base directory: %w", err)
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, errs.Wrap(errs.KindOf(err), fmt.Errorf("base directory: %w", err))
	}
	return true, nil
}

// checkParents walks to the directory as the kernel would, and refuses a
// symbolic link made by another user, and a directory in which any user could
// swap the next step.
func checkParents(path string) error {
	at, rest := "/", strings.Split(strings.Trim(path, "/"), "/")
	for links := 0; len(rest) > 1; {
		next := filepath.Join(at, rest[0])
		var st unix.Stat_t
		err := unix.Lstat(next, &st)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // ours to make
		}
		if err != nil {
			return errs.Wrap(errs.Permission, fmt.Errorf("base directory: lstat %s: %w", next, err))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if err := checkParent(next, st); err != nil {
				return err
			}
			at, rest = next, rest[1:]
			continue
		}
		if links++; links > maxLinks {
			return errs.New(errs.Invalid, "base directory %s: too many symbolic links", path)
		}
		if at, rest, err = follow(at, next, rest, st); err != nil {
			return err
		}
	}
	return nil
}

func checkParent(path string, st unix.Stat_t) error {
	if st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0 {
		return errs.WithRemedy(errs.New(errs.Permission,
			"base directory lies in %s, where every user can replace it (mode %04o)", path, st.Mode&0o7777),
			"choose another with -base")
	}
	return nil
}

// follow takes the symbolic link at next, the first of rest below at.
func follow(at, next string, rest []string, st unix.Stat_t) (string, []string, error) {
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", nil, errs.WithRemedy(errs.New(errs.Permission,
			"base directory is reached through the symbolic link %s of user %s", next, userName(st.Uid)),
			"choose another with -base")
	}
	target, err := os.Readlink(next)
	if err != nil {
		return "", nil, fmt.Errorf("base directory: %w", err)
	}
	if filepath.IsAbs(target) {
		at = "/"
	}
	target = filepath.Join(at, target)
	rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest[1:]...)
	return "/", rest, nil
}

// whyNotOpen says in words why a path is no directory.
func whyNotOpen(path string, err error) error {
	info, lerr := os.Lstat(path)
	switch {
	case lerr != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link (choose the directory itself with -base)")
	case !info.IsDir():
		return errors.New("it is not a directory")
	}
	return err
}

// groupID finds a group by name or number; -1 for "".
func groupID(name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, errs.Wrap(errs.NotFound, fmt.Errorf("-group: %w", err))
	}
	return strconv.Atoi(g.Gid)
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
