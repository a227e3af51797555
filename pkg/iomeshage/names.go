package iomeshage

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"minimega/pkg/iomeshage/internal/blake3"
)

const (
	maxName = 4096
	// partialPrefix begins the names of directories that hold what is still
	// coming. They lie beside the file they are for, on the same disk.
	partialPrefix = ".iomeshage-"
)

// clean turns what a user calls a file into its name: slash separated,
// relative to the root, "." for the root itself.
func (s *Service) clean(name string) (string, error) {
	local := name
	if filepath.IsAbs(name) {
		if rel, err := filepath.Rel(s.opts.Root, filepath.Clean(name)); err == nil && filepath.IsLocal(rel) {
			local = rel
		}
		local = strings.TrimLeft(local, "/")
	}
	local = path.Clean(local)
	if err := checkName(local); err != nil {
		return "", err
	}
	return local, nil
}

// checkName accepts names in the form that they have between hosts.
func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("name of %d bytes: %w", len(name), ErrName)
	case !fs.ValidPath(name) || strings.ContainsRune(name, 0) || hidden(name):
		return fmt.Errorf("%q: %w", name, ErrName)
	}
	return nil
}

// Hidden reports whether a path leads to what is still coming.
func Hidden(name string) bool { return hidden(name) }

func hidden(name string) bool {
	return strings.HasPrefix(name, partialPrefix) || strings.Contains(name, "/"+partialPrefix)
}

// partialDir is where a file lies until it is whole.
func partialDir(name string) string {
	sum := blake3.Sum([]byte(path.Base(name)))
	return path.Join(path.Dir(name), fmt.Sprintf("%s%x", partialPrefix, sum[:8]))
}

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[\`) }

// maxListed bounds what one host lists in one answer.
const maxListed = 20000

// expand returns the names of the regular files that a name, a directory or a
// pattern means here, sorted as they lie on the disk.
func (s *Service) expand(pattern string) ([]string, error) {
	fsys := s.root.FS()
	roots := []string{pattern}
	if isPattern(pattern) {
		var err error
		if roots, err = fs.Glob(fsys, pattern); err != nil {
			return nil, fmt.Errorf("%q: %w", pattern, err)
		}
	}
	var out []string
	for _, r := range roots {
		if hidden(r) {
			continue
		}
		err := s.walk(r, func(name string, _ fs.FileInfo) error {
			if len(out) >= maxListed {
				return fmt.Errorf("%s: more than %d files", pattern, maxListed)
			}
			out = append(out, name)
			return nil
		}, nil)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// walk calls f for each regular file at or below name, and, unless that is nil,
// odd for what is below and no file or directory, or leads out of the root.
// What cannot be read is passed over.
func (s *Service) walk(name string, f func(string, fs.FileInfo) error, odd func(string) error) error {
	st, err := s.root.Stat(name)
	if err != nil {
		return nil //nolint:nilerr // not there for us
	}
	if st.Mode().IsRegular() {
		return f(name, st)
	}
	if !st.IsDir() {
		return nil
	}
	return fs.WalkDir(s.root.FS(), name, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && d != nil && d.IsDir():
			return fs.SkipDir
		case err != nil:
			return nil
		case d.IsDir() && hidden(at):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		// A link to a file counts as one, a link to a directory is not followed.
		if st, err := s.root.Stat(at); err == nil && st.Mode().IsRegular() {
			return f(at, st)
		}
		if odd != nil {
			return odd(at)
		}
		return nil
	})
}

// odd returns what is the first in a directory here that is not sent with it: a
// link to a directory or to nothing, a device, and the like.
func (s *Service) odd(name string) (found string) {
	if name == "." {
		return ""
	}
	file := func(string, fs.FileInfo) error { return nil }
	_ = s.walk(name, file, func(at string) error { found = at; return fs.SkipAll })
	return found
}

// covers reports whether a pattern, or a directory, means a name. Hosts are
// not believed to have looked well.
func covers(pattern, name string) bool {
	for at := name; ; at = path.Dir(at) {
		if ok, err := path.Match(pattern, at); at == pattern || err == nil && ok {
			return true
		}
		if at == "." || at == "/" {
			return pattern == "."
		}
	}
}
