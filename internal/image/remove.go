package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// Info is what is known of an image.
type Info struct {
	ID      string    `json:"id"`
	Names   []Name    `json:"names"`
	Layers  []string  `json:"layers"` // diff IDs, lowest first
	Size    int64     `json:"size"`   // bytes of all files; layers may be shared with other images
	InUse   bool      `json:"in_use"` // by a container, or about to be
	Created time.Time `json:"created,omitzero"`
	Config  Config    `json:"config"`
}

// Name is a reference under which an image is known.
type Name struct {
	Reference string    `json:"reference"`
	Digest    string    `json:"digest,omitempty"` // of the manifest
	Time      time.Time `json:"time"`             // when it was brought in
}

// List returns all images, sorted by their first name.
func (s *Store) List(ctx context.Context) (list []Info, err error) {
	if _, err := os.Stat(s.path(imagesDir)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	held, err := lock(ctx, s.path(lockName), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	images, refs, err := s.catalog()
	if err != nil {
		return nil, err
	}
	used := s.mounted()
	for _, r := range images {
		i, err := s.info(r, refs, used)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.first(), b.first()) })
	return list, nil
}

func (i Info) first() string {
	if len(i.Names) == 0 {
		return i.ID
	}
	return i.Names[0].Reference
}

func (s *Store) catalog() (images []record, refs []refRecord, err error) {
	if images, err = records[record](s, imagesDir); err != nil {
		return nil, nil, err
	}
	refs, err = records[refRecord](s, refsDir)
	return images, refs, err
}

func (s *Store) info(r record, refs []refRecord, used mounts) (Info, error) {
	i := Info{ID: r.ID, Names: []Name{}, Layers: r.Layers, Size: r.Size}
	for _, ref := range refs {
		if ref.ID == r.ID {
			i.Names = append(i.Names, Name{ref.Ref, ref.Digest, ref.Time})
		}
	}
	slices.SortFunc(i.Names, func(a, b Name) int { return strings.Compare(a.Reference, b.Reference) })
	if len(r.Config) > 0 {
		f, err := parseConfig(r.Config)
		if err != nil {
			return i, err
		}
		i.Config, i.Created = configOf(f), f.Created.Time
	}
	var err error
	i.InUse, err = s.inUse(r, used)
	return i, err
}

// inUse reports whether the image is held or mounted.
func (s *Store) inUse(r record, used mounts) (bool, error) {
	if used.exactly(r.Layers) {
		return true, nil
	}
	f, err := os.OpenFile(s.path(imagesDir, short(r.ID)+suffix), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, err
	}
	free, err := host.Claim(f, briefly)
	return !free, errors.Join(err, f.Close())
}

// stored finds an image by a name of it, or by the start of its ID.
func (s *Store) stored(name string) (string, error) {
	images, refs, err := s.catalog()
	if err != nil {
		return "", err
	}
	if r := findRef(refs, name); r != nil {
		return r.ID, nil
	}
	found := map[string]bool{}
	hex := strings.TrimPrefix(name, "sha256:")
	for _, r := range images {
		if len(hex) >= 4 && strings.HasPrefix(strings.TrimPrefix(r.ID, "sha256:"), hex) {
			found[r.ID] = true
		}
	}
	ids := slices.Collect(maps.Keys(found))
	switch len(ids) {
	case 0:
		return "", errs.WithRemedy(errs.New(errs.NotFound, "there is no image %q", name), "`minimega image list` shows those there are")
	case 1:
		return ids[0], nil
	}
	return "", errs.New(errs.Invalid, "%d images have an ID that begins with %q", len(ids), name)
}

// findRef finds what a user may have written: a reference in full or short, or
// the name after image:.
func findRef(refs []refRecord, name string) *refRecord {
	forms := []string{name, "image:" + name}
	for _, s := range []string{name, "docker://" + name} {
		if r, err := Parse(s); err == nil {
			if r, err = r.here(); err == nil {
				forms = append(forms, r.String())
			}
		}
	}
	for _, form := range forms {
		for i := range refs {
			if refs[i].Ref == form {
				return &refs[i]
			}
		}
	}
	return nil
}

// Inspect returns what is known of an image, named as for Remove.
func (s *Store) Inspect(ctx context.Context, name string) (Info, error) {
	list, err := s.List(ctx)
	if err != nil {
		return Info{}, err
	}
	id, err := s.stored(name)
	if err != nil {
		return Info{}, err
	}
	for _, i := range list {
		if i.ID == id {
			return i, nil
		}
	}
	return Info{}, errs.New(errs.NotFound, "there is no image %q", name)
}

// Remove takes a name off an image, or with an ID all of them; an image
// without names goes, with all layers that no other has. One that is in use is
// refused (errs.State).
func (s *Store) Remove(ctx context.Context, name string) (err error) {
	if _, err := os.Stat(s.path(imagesDir)); errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "there is no image %q", name)
	}
	held, err := lock(ctx, s.path(lockName), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	id, err := s.stored(name)
	if err != nil {
		return err
	}
	images, refs, err := s.catalog()
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(refs, func(r refRecord) bool { return r.ID != id })
	if r := findRef(names, name); r != nil && len(names) > 1 {
		return os.Remove(s.refPath(r.Ref))
	}
	used := s.mounted()
	for _, r := range images {
		if r.ID != id {
			continue
		}
		if busy, err := s.inUse(r, used); busy || err != nil {
			return errors.Join(err, errs.WithRemedy(errs.New(errs.State, "image %s is in use", name), "kill and flush its containers first"))
		}
	}
	for _, r := range names {
		if err := os.Remove(s.refPath(r.Ref)); err != nil {
			return err
		}
	}
	return s.collect(used)
}

// Collect removes images without a name that are not in use, and layers that
// no image has.
func (s *Store) Collect(ctx context.Context) (err error) {
	if err := s.prepare(); err != nil {
		return err
	}
	held, err := lock(ctx, s.path(lockName), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	return s.collect(s.mounted())
}

// tidy is Collect for who would not wait for others.
func (s *Store) tidy() error {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	free, err := host.Claim(f, briefly)
	if free && err == nil {
		err = s.collect(s.mounted())
	}
	return errors.Join(err, f.Close())
}

// collect does the work of Collect. The store's lock is held, exclusive.
func (s *Store) collect(used mounts) error {
	images, refs, err := s.catalog()
	if err != nil {
		return err
	}
	keep := used.layers()
	for _, r := range images {
		if !slices.ContainsFunc(refs, func(ref refRecord) bool { return ref.ID == r.ID }) {
			busy, err := s.inUse(r, used)
			if err != nil {
				return err
			}
			if !busy {
				if err := os.Remove(s.path(imagesDir, short(r.ID)+suffix)); err != nil {
					return err
				}
				continue
			}
		}
		for _, l := range r.Layers {
			keep[short(l)] = true
		}
	}
	return errors.Join(s.removeLayers(keep), s.removeAll(locksDir), s.removeAll(tmpDir))
}

// removeLayers removes layers but those to keep. The record goes first: a
// layer without one is incomplete.
func (s *Store) removeLayers(keep map[string]bool) error {
	list, err := os.ReadDir(s.path(layersDir))
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range list {
		name := strings.TrimSuffix(e.Name(), suffix)
		if keep[name] {
			continue
		}
		for _, path := range []string{s.path(layersDir, name+suffix), s.path(layersDir, name)} {
			if err := os.RemoveAll(path); err != nil {
				failed = append(failed, fmt.Errorf("remove layer: %w", err))
			}
		}
	}
	return errors.Join(failed...)
}

func (s *Store) removeAll(dir string) error {
	list, err := os.ReadDir(s.path(dir))
	failed := []error{err}
	for _, e := range list {
		failed = append(failed, os.RemoveAll(filepath.Join(s.path(dir), e.Name())))
	}
	return errors.Join(failed...)
}
