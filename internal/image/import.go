package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// Meter tells how far an import is. The zero value is ready; it may be read
// while the import runs.
type Meter struct {
	total, read   atomic.Int64
	layers, ready atomic.Int32
}

// Progress returns how many bytes have been read, and of how many if that is
// known (else 0), and how many layers are unpacked.
func (m *Meter) Progress() (read, total int64, ready, layers int) {
	return m.read.Load(), m.total.Load(), int(m.ready.Load()), int(m.layers.Load())
}

// skip counts a layer that need not be read.
func (m *Meter) skip(size int64) {
	if size > 0 {
		m.read.Add(size)
	}
}

// parallel is how many layers of an image are brought in at the same time.
const parallel = 3

// Import brings an image in, also if there is one of this name already, and
// returns its ID. name, which may be empty, is another name for it.
func (s *Store) Import(ctx context.Context, ref Reference, name string, m *Meter) (string, error) {
	ref, err := ref.here()
	if err != nil {
		return "", err
	}
	if ref.Kind == Stored {
		return "", errs.New(errs.Invalid, "%v is in the store already", ref)
	}
	if err := s.prepare(); err != nil {
		return "", storeError(err)
	}
	held, err := lock(ctx, s.path(lockName), unix.LOCK_SH)
	if err != nil {
		return "", storeError(err)
	}
	id, err := s.add(ctx, ref, name, m)
	if err = errors.Join(storeError(err), held.Close()); err != nil {
		return id, err
	}
	return id, s.tidy()
}

func storeError(err error) error {
	if errors.Is(err, unix.ENOSPC) && errs.KindOf(err) == errs.Internal {
		return bad(err)
	}
	return err
}

// add does the work of Import. The store's lock is held, shared.
func (s *Store) add(ctx context.Context, ref Reference, name string, m *Meter) (string, error) {
	stamp, err := stampOf(ref)
	if err != nil {
		return "", err
	}
	src, err := s.open(ctx, ref)
	if err != nil {
		return "", fmt.Errorf("%v: %w", ref, err)
	}
	r, err := s.addImage(ctx, src, m)
	if err = errors.Join(err, src.close()); err != nil {
		return "", named(ref, err)
	}
	now := refRecord{Ref: ref.String(), ID: r.ID, Stamp: stamp, Time: time.Now().UTC().Truncate(time.Second)}
	if src.digest != (v1.Hash{}) {
		now.Digest = src.digest.String()
	}
	if err := s.writeRef(now); err != nil || name == "" {
		return r.ID, err
	}
	now.Ref, now.Stamp = Reference{Kind: Stored, Tag: name}.String(), ""
	return r.ID, s.writeRef(now)
}

func named(ref Reference, err error) error { return fmt.Errorf("%v: %w", ref, err) }

func (s *Store) refPath(ref string) string { return s.path(refsDir, short(digestOf(ref))+suffix) }

func (s *Store) writeRef(r refRecord) error { return writeRecord(s.refPath(r.Ref), r) }

// stampOf tells one version of a file from another, "" for a registry. That of
// a layout directory is that of its index.
func stampOf(r Reference) (string, error) {
	if r.Path == "" {
		return "", nil
	}
	st, err := os.Stat(r.Path)
	if errors.Is(err, os.ErrNotExist) {
		return "", host.Missing("", r.Path)
	}
	if err == nil && st.IsDir() && r.Kind != Local {
		st, err = os.Stat(filepath.Join(r.Path, "index.json"))
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %d", st.Size(), st.ModTime().UnixNano()), nil
}

// addImage unpacks the layers that are missing and records the image.
func (s *Store) addImage(ctx context.Context, src *source, m *Meter) (record, error) {
	diffIDs := make([]v1.Hash, len(src.layers))
	if src.config != nil {
		f, err := parseConfig(src.config)
		if err != nil {
			return record{}, err
		}
		if err := checkPlatform(configOf(f), s.arch); err != nil {
			return record{}, err
		}
		if diffIDs = f.RootFS.DiffIDs; len(diffIDs) != len(src.layers) || len(diffIDs) == 0 {
			return record{}, errs.New(errs.Invalid, "the image has %d layers and names %d", len(src.layers), len(diffIDs))
		}
	}
	layers, err := s.addLayers(ctx, src.layers, diffIDs, m)
	if err != nil {
		return record{}, err
	}
	r := record{Config: src.config}
	for _, l := range layers {
		r.Layers = append(r.Layers, l.DiffID)
		r.Size += l.Size
	}
	if src.config != nil {
		r.ID = digestOf(string(src.config))
	} else {
		r.ID = r.Layers[0]
		if r.Top, err = onlyDirectory(s.layerPath(r.ID)); err != nil {
			return record{}, err
		}
	}
	return r, writeRecord(s.path(imagesDir, short(r.ID)+suffix), r)
}

func digestOf(text string) string {
	h, _, _ := v1.SHA256(strings.NewReader(text)) // reading a string does not fail
	return h.String()
}

// addLayers unpacks the layers, some at the same time. The first failure ends
// the others.
func (s *Store) addLayers(ctx context.Context, blobs []blob, diffIDs []v1.Hash, m *Meter) ([]layer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.layers.Store(int32(len(blobs)))
	for _, b := range blobs {
		m.total.Add(max(b.size, 0))
	}
	layers := make([]layer, len(blobs))
	free := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, b := range blobs {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			l, err := s.addLayer(ctx, diffIDs[i], b, m)
			if err != nil {
				cancel(err)
			}
			layers[i] = l
			m.ready.Add(1)
		})
	}
	wg.Wait()
	return layers, context.Cause(ctx)
}

// systemDirs are directories at the top of a file system. One of them alone
// is not the directory that a file system was packed in.
var systemDirs = map[string]bool{"bin": true, "boot": true, "dev": true, "etc": true, "home": true, "lib": true, "lib64": true, "mnt": true, "opt": true,
	"proc": true, "root": true, "run": true, "sbin": true, "srv": true, "sys": true, "tmp": true, "usr": true, "var": true}

// onlyDirectory returns the directory that a file system was packed in, "" if
// it was packed without.
func onlyDirectory(dir string) (string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	list, err := f.ReadDir(2)
	if err != nil || len(list) != 1 || !list[0].IsDir() || systemDirs[list[0].Name()] {
		return "", nil // also if it is empty, which ReadDir calls io.EOF
	}
	return list[0].Name(), nil
}
