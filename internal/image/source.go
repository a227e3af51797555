package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"minimega/internal/errs"
)

// source is an image where it comes from.
type source struct {
	digest v1.Hash // of the manifest, zero if there is none
	config []byte  // nil for a bare file system
	layers []blob  // lowest first
	close  func() error
}

// blob is a layer as it comes.
type blob struct {
	digest v1.Hash // promised, zero for none
	size   int64   // -1 if not known
	open   func(context.Context) (io.ReadCloser, error)
}

// open finds the image that a reference names.
func (s *Store) open(ctx context.Context, r Reference) (*source, error) {
	switch r.Kind {
	case Registry:
		return s.openRegistry(ctx, r)
	case OCI:
		return s.openFiles(ctx, r, readLayout)
	case DockerArchive:
		return s.openFiles(ctx, r, readDockerArchive)
	}
	return s.openTarball(ctx, r)
}

// openTarball takes a tar archive: a file system, unless its content shows
// that it is an image.
func (s *Store) openTarball(ctx context.Context, r Reference) (*source, error) {
	f, err := openRegular(r.Path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if index, err := readIndex(f); err == nil {
		kind := index.kind()
		if kind != nil {
			return s.readFiles(index, r, kind)
		}
	}
	size := st.Size()
	return &source{
		layers: []blob{{size: size, open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, 0, size)), nil
		}}},
		close: f.Close,
	}, nil
}

// kind tells which image the files of an archive make, nil for none.
func (t *tarFiles) kind() reader {
	_, layout := t.entries["oci-layout"]
	_, index := t.entries["index.json"]
	_, manifest := t.entries["manifest.json"]
	switch {
	case layout && index:
		return readLayout
	case manifest && len(t.entries) > 1 && !t.has("bin", "etc", "usr"):
		return readDockerArchive
	}
	return nil
}

func (t *tarFiles) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return t.top[n] })
}

// reader makes an image of files.
type reader func(fs files, r Reference, arch string) (*source, error)

// openFiles opens a directory or an archive of files that make an image.
func (s *Store) openFiles(ctx context.Context, r Reference, read reader) (*source, error) {
	fs, err := s.files(ctx, r.Path)
	if err != nil {
		return nil, err
	}
	return s.readFiles(fs, r, read)
}

func (s *Store) readFiles(fs files, r Reference, read reader) (*source, error) {
	src, err := read(fs, r, s.arch)
	if err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	src.close = fs.Close
	return src, nil
}

// readJSON reads a small file and checks it against what is promised of it, if
// something is.
func readJSON(fs files, name string, promised *v1.Descriptor, into any) ([]byte, error) {
	f, size, err := fs.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxConfig {
		return nil, errs.New(errs.Invalid, "%s has %d bytes, the most is %d", name, size, maxConfig)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if promised != nil {
		h := sha256.New()
		_, _ = h.Write(b) // never fails, says package hash
		if got := sum(h); got != promised.Digest {
			return nil, wrongDigest(name, got, promised.Digest)
		}
	}
	if into == nil {
		return b, nil
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(into); err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", name, err)
	}
	return b, nil
}

func wrongDigest(what string, got, want v1.Hash) error {
	return errs.New(errs.Invalid, "%s is not what it should be: its digest is %v, not %v", what, got, want)
}

func openBlob(fs files, name string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		f, _, err := fs.open(name)
		return f, err
	}
}

func blobPath(h v1.Hash) string { return filepath.Join("blobs", h.Algorithm, h.Hex) }

// oneOf words that a tag is needed, or that there is no such.
func oneOf(r Reference, tags []string) error {
	slices.Sort(tags)
	const most = 20
	list := tags
	if len(list) > most {
		list = list[:most]
	}
	if r.Tag == "" {
		return errs.New(errs.Invalid, "%s has %d images: name one after a colon, of %q", r.Path, len(tags), list)
	}
	return errs.New(errs.NotFound, "%s has no image %q, but %q", r.Path, r.Tag, list)
}
