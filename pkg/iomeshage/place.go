package iomeshage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// What comes is put in its place through no link: what another host has sent
// as a link may lead anywhere, and where this host writes is not up to it.

// into opens a directory to write into, and makes what is missing of it.
func (s *Service) into(dir string) (*os.Root, error) {
	at, err := s.root.OpenRoot(".")
	if err != nil || dir == "." {
		return at, err
	}
	done := ""
	for part := range strings.SplitSeq(dir, "/") {
		done = path.Join(done, part)
		next, err := descend(at, part, 0o755)
		_ = at.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", done, err)
		}
		at = next
	}
	return at, nil
}

// descend opens a directory in another one, and makes it if it is missing. One
// that turns into a link meanwhile is noticed: what was opened must be what
// was there.
func descend(in *os.Root, name string, mode fs.FileMode) (*os.Root, error) {
	was, err := in.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := in.Mkdir(name, mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, bare(err)
		}
		was, err = in.Lstat(name)
	}
	switch {
	case err != nil:
		return nil, bare(err)
	case was.Mode().Type() == fs.ModeSymlink:
		return nil, errors.New("it is a symbolic link here, and nothing is written through one")
	case !was.IsDir():
		return nil, errors.New("it is no directory here")
	}
	d, err := in.OpenRoot(name)
	if err != nil {
		return nil, bare(err)
	}
	if is, err := d.Stat("."); err != nil || !os.SameFile(was, is) {
		_ = d.Close()
		return nil, errors.New("it was replaced meanwhile")
	}
	return d, nil
}

// makeDir makes a directory with the mode of the original, but that its owner
// may always write, as is needed to fill it. One that is there stays as it is.
func (s *Service) makeDir(name string, mode fs.FileMode) error {
	in, err := s.into(path.Dir(name))
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := in.Lstat(path.Base(name)); err == nil {
		d, err := descend(in, path.Base(name), 0)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return d.Close()
	}
	d, err := descend(in, path.Base(name), mode|0o700)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer d.Close()
	f, err := d.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Chmod(mode | 0o700) // which the umask has cut
}

// makeLink makes a symbolic link, unless the same is there.
func (s *Service) makeLink(name, to string) error {
	in, err := s.into(path.Dir(name))
	if err != nil {
		return err
	}
	defer in.Close()
	err = in.Symlink(to, path.Base(name))
	if errors.Is(err, fs.ErrExist) {
		if there, e := in.Readlink(path.Base(name)); e == nil && there == to {
			return nil
		}
		return fmt.Errorf("%s: %w: something else has come there", name, ErrConflict)
	}
	return err
}

// private reports whether nobody but root, and whom root has let in, reaches
// the files directory: then a program that runs as root whoever starts it is of
// use to nobody but the guests whose file system it is part of.
func (s *Service) private() bool {
	at, err := filepath.EvalSymlinks(s.opts.Root)
	for err == nil {
		var st fs.FileInfo
		if st, err = os.Stat(at); err == nil && st.Mode()&0o001 == 0 {
			return true
		}
		if at == "/" {
			return false
		}
		at = filepath.Dir(at)
	}
	return false
}
