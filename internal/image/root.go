package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// Root is a file system, ready to be stacked.
type Root struct {
	Layers   []string // directories, lowest first
	Writable bool     // a directory of the user's; those of the store are shared and never written
	Config   Config

	held *os.File // lock of the image, nil for a directory
}

// Release says that the root is no longer needed, or that it is mounted by
// now: a mount is noticed by itself. Until then it cannot be removed.
func (r *Root) Release() error {
	if r.held == nil {
		return nil
	}
	return r.held.Close()
}

// Program is the process that an image wants to run.
type Program struct {
	Args []string // the first is the absolute path of the program
	Env  []string // NAME=value
	Dir  string   // absolute
	User User
}

// Program returns what the image says that is to be run in it, nil if it does
// not say. Names are looked up in the files of the image.
func (r *Root) Program() (*Program, error) {
	args := r.Config.Command()
	if len(args) == 0 || args[0] == "" {
		return nil, nil
	}
	files := r.stack()
	u, err := files.user(r.Config.User)
	if err != nil {
		return nil, err
	}
	p := &Program{Dir: absolute(r.Config.WorkingDir, "/"), User: u, Env: slices.Clone(r.Config.Env)}
	if variable(p.Env, "PATH") == "" {
		p.Env = append(p.Env, "PATH="+defaultPath)
	}
	if variable(p.Env, "HOME") == "" {
		p.Env = append(p.Env, "HOME="+u.Home)
	}
	path, err := files.program(args[0], p.Env, p.Dir)
	if err != nil {
		return nil, err
	}
	p.Args = slices.Concat([]string{path}, args[1:])
	return p, nil
}

func (r *Root) stack() stack {
	s := stack(slices.Clone(r.Layers))
	slices.Reverse(s)
	return s
}

// Open returns the file system that a reference names. What is not in the
// store yet, or has another content since, is brought in; a registry is asked
// only for what the store lacks. Errors: errs.NotFound, errs.Unsupported (for
// another processor), errs.Invalid (damaged, hostile), errs.Resource (beyond a
// limit, disk full), errs.Unreachable.
func (s *Store) Open(ctx context.Context, reference string) (*Root, error) {
	ref, err := Parse(reference)
	if err != nil {
		return nil, err
	}
	if ref.Kind == Local {
		if root, err := openDirectory(ref.Path); root != nil || err != nil {
			return root, err
		}
	}
	if ref, err = ref.here(); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, storeError(err)
	}
	held, err := lock(ctx, s.path(lockName), unix.LOCK_SH)
	if err != nil {
		return nil, storeError(err)
	}
	root, err := s.openHeld(ctx, ref)
	if closed := held.Close(); closed != nil && err == nil {
		return nil, errors.Join(closed, root.Release())
	}
	return root, storeError(err)
}

// openDirectory returns nil for a file.
func openDirectory(path string) (*Root, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, host.Missing("filesystem", path)
	case err != nil:
		return nil, errs.New(errs.Permission, "filesystem: %w", err)
	case st.IsDir():
		return &Root{Layers: []string{path}, Writable: true}, nil
	}
	return nil, nil
}

// openHeld opens what the store has, or brings it in first. The store's lock
// is held, shared.
func (s *Store) openHeld(ctx context.Context, ref Reference) (*Root, error) {
	id, err := s.known(ref)
	if err != nil {
		return nil, err
	}
	if id != "" {
		root, err := s.root(ctx, id)
		if !errors.Is(err, fs.ErrNotExist) || ref.Kind == Stored {
			return root, err
		}
	}
	s.log.Info("bringing in an image", "reference", ref)
	if id, err = s.add(ctx, ref, "", new(Meter)); err != nil {
		return nil, err
	}
	return s.root(ctx, id)
}

// known returns the ID of what a reference named when it was brought in, ""
// for none or if its file has changed since.
func (s *Store) known(ref Reference) (string, error) {
	if ref.Kind == Stored {
		return s.stored(ref.Tag)
	}
	stamp, err := stampOf(ref)
	if err != nil {
		return "", err
	}
	var r refRecord
	err = readRecord(s.refPath(ref.String()), &r)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (r.Stamp != stamp || r.Ref != ref.String()) {
		return "", nil
	}
	return r.ID, err
}

// root opens an image of the store and holds it.
func (s *Store) root(ctx context.Context, id string) (*Root, error) {
	f, err := os.OpenFile(s.path(imagesDir, short(id)+suffix), os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	root := &Root{held: f}
	if err := s.fill(ctx, root, id); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return root, nil
}

func (s *Store) fill(ctx context.Context, root *Root, id string) error {
	if err := host.Lock(ctx, root.held, unix.LOCK_SH); err != nil {
		return fmt.Errorf("lock of image %s: %w", short(id), err)
	}
	var r record
	if err := readRecord(root.held.Name(), &r); err != nil {
		return err
	}
	if r.ID != id {
		return errs.New(errs.Exists, "image %s begins like %s, which the store has already", id, r.ID)
	}
	if len(r.Config) > 0 {
		f, err := parseConfig(r.Config)
		if err != nil {
			return err
		}
		root.Config = configOf(f)
	}
	for i, diffID := range r.Layers {
		if _, err := s.findLayer(diffID); err != nil {
			return err
		}
		// The overlay file system takes no directory twice. All that a layer does
		// is done by its last occurrence.
		if !slices.Contains(r.Layers[i+1:], diffID) {
			root.Layers = append(root.Layers, filepath.Join(s.layerPath(diffID), r.Top))
		}
	}
	return checkPlatform(root.Config, s.arch)
}
