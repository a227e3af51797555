package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// nameLength is how much of a digest names a file. Short names let the kernel
// take more layers in one mount; the whole digest is in the record.
const nameLength = 16

// short is the name of what has this digest.
func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(nameLength, len(hex))]
}

// layerPath is where a layer is unpacked.
func (s *Store) layerPath(diffID string) string { return s.path(layersDir, short(diffID)) }

// findLayer returns what is known of a layer that is complete.
func (s *Store) findLayer(diffID string) (layer, error) {
	var l layer
	if err := readRecord(s.layerPath(diffID)+suffix, &l); err != nil {
		return l, err
	}
	if l.DiffID != diffID {
		return l, errs.New(errs.Exists, "layer %s begins like %s, which the store has already", diffID, l.DiffID)
	}
	return l, nil
}

// stallTime is how long a layer may bring nothing, attempts how often one that
// breaks off is begun anew.
const (
	stallTime = time.Minute
	attempts  = 3
)

// addLayer unpacks a layer unless it is there. want is its diff ID, zero if
// only unpacking will tell.
func (s *Store) addLayer(ctx context.Context, want v1.Hash, b blob, m *Meter) (layer, error) {
	if want == (v1.Hash{}) {
		return s.makeLayer(ctx, want, b, m)
	}
	held, err := lock(ctx, s.path(locksDir, short(want.String())), unix.LOCK_EX)
	if err != nil {
		return layer{}, err
	}
	defer held.Close()
	l, err := s.findLayer(want.String())
	if errors.Is(err, fs.ErrNotExist) {
		return s.makeLayer(ctx, want, b, m)
	}
	if err == nil {
		m.skip(b.size)
	}
	return l, err
}

// makeLayer unpacks a layer. Its lock is held by the caller if want is known.
func (s *Store) makeLayer(ctx context.Context, want v1.Hash, b blob, m *Meter) (l layer, err error) {
	dir, err := os.MkdirTemp(s.path(tmpDir), "")
	if err != nil {
		return layer{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // as the root of a file system is, unless the archive says otherwise
		return layer{}, err
	}
	u, err := s.unpackBlob(ctx, dir, b, m)
	if err != nil {
		return layer{}, err
	}
	if want == (v1.Hash{}) {
		held, err := lock(ctx, s.path(locksDir, short(u.diffID.String())), unix.LOCK_EX)
		if err != nil {
			return layer{}, err
		}
		defer held.Close()
		if l, err := s.findLayer(u.diffID.String()); !errors.Is(err, fs.ErrNotExist) {
			return l, err
		}
	} else if u.diffID != want {
		return layer{}, wrongDigest("a layer, unpacked,", u.diffID, want)
	}
	return s.publish(dir, u)
}

// publish moves a complete layer to its place. Its lock is held.
func (s *Store) publish(dir string, u unpacked) (layer, error) {
	l := layer{DiffID: u.diffID.String(), Size: u.size, Files: u.files}
	place := s.layerPath(l.DiffID)
	// What is there without a record was left by a process that was killed.
	if err := os.RemoveAll(place); err != nil {
		return layer{}, err
	}
	if err := os.Rename(dir, place); err != nil {
		return layer{}, err
	}
	if err := writeRecord(place+suffix, l); err != nil {
		return layer{}, errors.Join(bad(err), os.RemoveAll(place))
	}
	return l, nil
}

// unpackBlob fetches and unpacks a layer, and begins anew when a connection
// breaks.
func (s *Store) unpackBlob(ctx context.Context, dir string, b blob, m *Meter) (unpacked, error) {
	for n := 1; ; n++ {
		u, read, err := s.unpackOnce(ctx, dir, b, m)
		if err == nil || n == attempts || ctx.Err() != nil || errs.KindOf(err) != errs.Unreachable {
			return u, err
		}
		s.log.Warn("a layer broke off: beginning it anew", "digest", b.digest, "err", err)
		m.read.Add(-read)
		if err := emptyDir(dir); err != nil {
			return u, err
		}
	}
}

func emptyDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

// unpackOnce returns also how many bytes it has read.
func (s *Store) unpackOnce(ctx context.Context, dir string, b blob, m *Meter) (u unpacked, read int64, err error) {
	if b.size > s.limits.Bytes && s.limits.Bytes >= 0 {
		return u, 0, over("max-bytes", "a layer of %d bytes is larger than the limit of %d bytes (max-bytes)", b.size, s.limits.Bytes)
	}
	r, err := b.open(ctx)
	if err != nil {
		return u, 0, b.failed(err)
	}
	w := watch(ctx, r)
	u, err = unpack(w.ctx, dir, w, s.limits, func(n int64) { read += n; m.read.Add(n) })
	broken := w.Close()
	if broken != nil && b.size >= 0 && read >= b.size && ctx.Err() == nil {
		broken = errs.New(errs.Invalid, "it is not what it should be: %w", broken) // all of it came
	}
	if broken != nil && (err == nil || errs.KindOf(err) == errs.Internal || errors.Is(err, io.ErrUnexpectedEOF)) {
		err = broken
	}
	if err == nil && b.digest != (v1.Hash{}) && u.digest != b.digest {
		err = wrongDigest("it", u.digest, b.digest)
	}
	return u, read, b.failed(err)
}

// failed names the layer in an error.
func (b blob) failed(err error) error {
	if err == nil || b.digest == (v1.Hash{}) {
		return err
	}
	return fmt.Errorf("layer %s: %w", short(b.digest.String()), err)
}

// watched is a layer on its way: a deadline moves with each read.
type watched struct {
	ctx    context.Context // ends with the deadline
	cancel context.CancelCauseFunc
	r      io.ReadCloser
	close  func() error
	timer  *time.Timer
	failed error // how reading failed
}

func watch(ctx context.Context, r io.ReadCloser) *watched {
	w := &watched{r: r, close: sync.OnceValue(r.Close)}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(stallTime, func() {
		w.cancel(errs.New(errs.Unreachable, "nothing came for %v", stallTime))
		_ = w.close() // ends a read; Close returns the error
	})
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(stallTime)
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed = err
	}
	return n, err
}

// Close returns why no more could be read, nil if the end was reached.
func (w *watched) Close() error {
	w.timer.Stop()
	defer w.cancel(nil)
	err := w.close()
	if cause := context.Cause(w.ctx); cause != nil {
		return cause
	}
	if w.failed != nil {
		return errs.Wrap(errs.Unreachable, w.failed)
	}
	return err
}
