package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
)

// maxBacking bounds how many files stand on each other.
const maxBacking = 64

// backing brings the files that a file here needs. seen are those for whose
// sake this one is here.
func (s *Service) backing(ctx context.Context, name string, seen map[string]bool) error {
	if s.opts.Backing == nil {
		return nil
	}
	if seen[name] || len(seen) >= maxBacking {
		return fmt.Errorf("%s: its backing files have no end", name)
	}
	list, err := s.opts.Backing(filepath.Join(s.opts.Root, name))
	if err != nil || len(list) == 0 {
		return nil //nolint:nilerr // it is no image; whoever uses it as one says so better
	}
	below := maps.Clone(seen)
	below[name] = true
	for _, p := range list {
		rel, err := filepath.Rel(s.opts.Root, p)
		if err != nil || !filepath.IsLocal(rel) {
			s.opts.Log.Warn("file distribution: a backing file does not lie in the files directory and is not fetched", "file", name, "backing", p)
			continue
		}
		if err := s.needs(ctx, rel, below); err != nil {
			return fmt.Errorf("backing file of %s: %w", name, err)
		}
	}
	return nil
}

// needs brings one file if it is not here, and what that one needs.
func (s *Service) needs(ctx context.Context, name string, seen map[string]bool) error {
	if seen[name] {
		return fmt.Errorf("%s: its backing files have no end", name)
	}
	if _, err := s.root.Stat(name); err == nil && s.running(name) == nil {
		return s.backing(ctx, name, seen)
	}
	return s.get(ctx, name, seen)
}

// Fetch brings the file at an absolute path if it lies in the files directory
// and is not here, with the files that it needs, and the rest of a directory of
// which a part has come. Other paths are returned as they are, and so is one
// that is here, without asking anybody.
func (s *Service) Fetch(ctx context.Context, path string) (string, error) {
	rel, err := filepath.Rel(s.opts.Root, path)
	if err != nil || !filepath.IsAbs(path) || !filepath.IsLocal(rel) || rel == "." {
		return path, nil
	}
	st, err := s.root.Stat(rel)
	if err == nil && st.IsDir() && len(s.lacking(rel)) > 0 {
		err := s.get(ctx, rel, map[string]bool{})
		if errors.Is(err, ErrNotFound) {
			err = s.whole(rel, rel) // it is there, and lacks what nobody has
		}
		return path, err
	}
	if err == nil && st.IsDir() || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return path, nil //nolint:nilerr // a link that leads out is the caller's business
	}
	return path, s.needs(ctx, rel, map[string]bool{})
}
