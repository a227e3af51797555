package iomeshage

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"minimega/pkg/iomeshage/internal/blake3"
)

const (
	maxName = 4096
	// maxDepth is in how many directories a name may lie: each costs a step
	// whenever something is written there.
	maxDepth = 256
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
	case strings.Count(name, "/") > maxDepth:
		return fmt.Errorf("name in %d directories, at most %d: %w", strings.Count(name, "/"), maxDepth, ErrName)
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
const maxListed = 40000

// visit calls f for what a name, a directory or a pattern means here, sorted as
// it lies on the disk; see walk.
func (s *Service) visit(pattern string, f func(string, fs.FileInfo) error, odd func(string) error) error {
	roots := []string{pattern}
	if isPattern(pattern) {
		var err error
		if roots, err = fs.Glob(s.root.FS(), pattern); err != nil {
			return fmt.Errorf("%q: %w", pattern, err)
		}
	}
	n := 0
	counted := func(name string, st fs.FileInfo) error {
		if n++; n > maxListed {
			return fmt.Errorf("%s: more than %d files", pattern, maxListed)
		}
		return f(name, st)
	}
	for _, r := range roots {
		if hidden(r) {
			continue
		}
		if err := s.walk(r, counted, odd); err != nil {
			return err
		}
	}
	return nil
}

// walk calls f for the file at name, or for the directory there and for each
// file, directory and link below it, and, unless that is nil, odd for what else
// is below. Where name itself is a link, or leads through one, that is followed
// if it stays in the root; a link below is none of what it leads to. What cannot
// be read is passed over.
func (s *Service) walk(name string, f func(string, fs.FileInfo) error, odd func(string) error) error {
	top, err := s.root.Stat(name)
	if err != nil {
		return nil //nolint:nilerr // not there for us
	}
	if top.Mode().IsRegular() {
		return f(name, top)
	}
	if !top.IsDir() {
		return nil
	}
	return fs.WalkDir(s.root.FS(), name, func(at string, d fs.DirEntry, err error) error {
		skip := error(nil)
		if d != nil && d.IsDir() {
			skip = fs.SkipDir
		}
		if err != nil || hidden(at) {
			return skip
		}
		if at == name {
			return unlessRoot(at, top, f)
		}
		st, err := d.Info() // what it was when the directory was read, within the root
		switch {
		case err != nil:
			return skip
		case checkName(at) != nil || !st.Mode().IsRegular() && !st.IsDir() && st.Mode().Type() != fs.ModeSymlink:
			if odd != nil {
				return cmp.Or(odd(at), skip)
			}
			return skip
		case !st.IsDir(): // also where it was one a moment ago
			return cmp.Or(f(at, st), skip)
		}
		return f(at, st)
	})
}

// unlessRoot leaves out the files directory itself, which every host has.
func unlessRoot(name string, st fs.FileInfo, f func(string, fs.FileInfo) error) error {
	if name == "." {
		return nil
	}
	return f(name, st)
}

// follow is the name that a link here leads to, of which nothing need be there;
// of what is no link, or leads out of the root, the name itself.
func (s *Service) follow(name string) string {
	at := name
	for range 40 { // as many as Linux follows
		to, err := s.root.Readlink(at)
		if err != nil {
			return at
		}
		if at = path.Join(path.Dir(at), to); path.IsAbs(to) || checkName(at) != nil {
			return name
		}
	}
	return name
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
