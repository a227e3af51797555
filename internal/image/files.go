package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/decompress"
	"minimega/internal/errs"
	"minimega/internal/host"
)

// files are those that an image is made of, in a directory or an archive.
type files interface {
	open(name string) (io.ReadCloser, int64, error)
	Close() error
}

// files opens a directory, or an archive that may be compressed.
func (s *Store) files(ctx context.Context, name string) (files, error) {
	st, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, host.Missing("", name)
	case err != nil:
		return nil, errs.Wrap(errs.Permission, err)
	case st.IsDir():
		root, err := os.OpenRoot(name)
		return dirFiles{root}, err
	}
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	plain, err := s.decompressed(ctx, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, bad(err)), f.Close())
	}
	t, err := readIndex(plain)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, bad(err)), plain.Close())
	}
	return t, nil
}

// openRegular opens an ordinary file: reading a pipe would wait for ever.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, host.Missing("", name)
	case err != nil:
		return nil, errs.Wrap(errs.Permission, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is neither a directory nor an archive", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// decompressed returns the file itself, or what is packed in it as a file
// without a name in the store.
func (s *Store) decompressed(ctx context.Context, f *os.File) (*os.File, error) {
	if !packed(f) {
		return f, nil
	}
	in := &counter{ctx: ctx, r: io.NewSectionReader(f, 0, 1<<62)}
	z, err := decompress.Reader(ctx, in)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	out, err := os.CreateTemp(s.path(tmpDir), "")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(out.Name()); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	from := &bounded{counter: counter{ctx: ctx, r: z}, in: in, limits: s.limits}
	for {
		_, err := io.CopyN(out, from, s.limits.step())
		if errors.Is(err, io.EOF) {
			return out, f.Close()
		}
		if err == nil {
			err = s.limits.room(int(out.Fd()), 0)
		}
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
	}
}

// packed reports whether the file is compressed. Uncompressed tar archives
// have their mark 257 bytes from the start.
func packed(f *os.File) bool {
	var magic [5]byte
	_, err := f.ReadAt(magic[:], 257)
	return err != nil || string(magic[:]) != "ustar"
}

// dirFiles are files in a directory; links out of it are refused.
type dirFiles struct{ root *os.Root }

func (d dirFiles) Close() error { return d.root.Close() }

func (d dirFiles) open(name string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(path.Clean(name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, errs.New(errs.NotFound, "%s: %w", name, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is no file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// tarFiles are files in an archive that is not compressed.
type tarFiles struct {
	f       *os.File
	entries map[string]section
	top     map[string]bool // first elements of all names
}

// section is where a file lies in an archive, or what a link leads to.
type section struct {
	at, size int64
	link     string
}

const (
	maxIndexed = 1 << 18 // files of an image in an archive
	maxHops    = 8       // links to links
)

// readIndex notes where each file of an archive lies.
func readIndex(f *os.File) (*tarFiles, error) {
	t := &tarFiles{f: f, entries: map[string]section{}, top: map[string]bool{}}
	in := io.NewSectionReader(f, 0, 1<<62)
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if err := t.add(h, at); err != nil {
			return nil, err
		}
	}
}

func (t *tarFiles) add(h *tar.Header, at int64) error {
	name := path.Clean(h.Name)
	first, _, _ := strings.Cut(name, "/")
	t.top[first] = true
	if len(t.entries) >= maxIndexed || len(t.top) > maxIndexed {
		return errs.New(errs.Resource, "more than %d files in an image archive", maxIndexed)
	}
	switch h.Typeflag {
	case tar.TypeReg:
		t.entries[name] = section{at: at, size: h.Size}
	case tar.TypeSymlink:
		t.entries[name] = section{link: path.Join(path.Dir(name), h.Linkname)}
	case tar.TypeLink:
		t.entries[name] = section{link: path.Clean(h.Linkname)}
	}
	return nil
}

func (t *tarFiles) Close() error { return t.f.Close() }

func (t *tarFiles) open(name string) (io.ReadCloser, int64, error) {
	at := path.Clean(name)
	for range maxHops {
		s, ok := t.entries[at]
		if !ok {
			return nil, 0, errs.New(errs.NotFound, "%s is not in the archive", name)
		}
		if s.link == "" {
			return io.NopCloser(io.NewSectionReader(t.f, s.at, s.size)), s.size, nil
		}
		at = s.link
	}
	return nil, 0, errs.New(errs.Invalid, "%s: a link to a link to a link", name)
}
