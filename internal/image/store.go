// Package image turns what `vm config filesystem` names into directories that
// a container engine can stack: directories as they are, and tar archives,
// image archives and images of registries unpacked once into a store that all
// of a base directory's processes share.
//
// Archives are hostile: nothing is made outside the directory that they are
// unpacked into, nothing beyond limits, and nothing half-unpacked stays.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// DirName is the directory of the store in a base directory.
const DirName = "images"

// Options say where a store is. Dir is needed.
type Options struct {
	Dir    string // made when first needed
	Limits Limits
	Arch   string // default: that of this host
	Log    *slog.Logger
}

// Names in the store.
//
//	layers/XXXX       a layer, unpacked; named after the start of its diff ID
//	layers/XXXX.json  what it is; there once it is complete
//	images/XXXX.json  an image; locked (shared) by who is about to use it
//	refs/XXXX.json    a name of an image
//	tmp/              what is being made
//	locks/            held while a layer is being made
//	lock              shared by who adds, exclusive by who removes
const (
	layersDir = "layers"
	imagesDir = "images"
	refsDir   = "refs"
	tmpDir    = "tmp"
	locksDir  = "locks"
	lockName  = "lock"
	suffix    = ".json"
)

// Store keeps images. It holds no resources between calls.
type Store struct {
	dir    string
	limits Limits
	arch   string
	log    *slog.Logger

	once    sync.Once
	failure error // of the once
}

// NewStore returns the store in a directory.
func NewStore(o Options) *Store {
	s := &Store{dir: o.Dir, limits: o.Limits.withDefaults(), arch: o.Arch, log: o.Log}
	if s.arch == "" {
		s.arch = runtime.GOARCH
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// prepare makes the directories and removes what processes that are gone were
// making.
func (s *Store) prepare() error {
	s.once.Do(func() {
		for _, d := range []string{layersDir, imagesDir, refsDir, tmpDir, locksDir} {
			if s.failure = os.MkdirAll(s.path(d), 0o700); s.failure != nil {
				return
			}
		}
		s.failure = s.sweep()
	})
	return s.failure
}

// sweep removes temporary directories if nobody is adding anything.
func (s *Store) sweep() error {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	free, err := host.Claim(f, briefly)
	if free && err == nil {
		err = s.removeAll(tmpDir)
	}
	return errors.Join(err, f.Close())
}

// layer is what layers/XXXX.json says.
type layer struct {
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"` // bytes of all files
	Files  int64  `json:"files"`
}

// record is an image as images/XXXX.json has it.
type record struct {
	ID     string          `json:"id"`     // digest of the configuration, or of the archive of a bare file system
	Layers []string        `json:"layers"` // diff IDs, lowest first
	Top    string          `json:"top,omitempty"`
	Size   int64           `json:"size"`
	Config json.RawMessage `json:"config,omitempty"`
}

// refRecord is a name of an image as refs/XXXX.json has it.
type refRecord struct {
	Ref    string    `json:"ref"`
	ID     string    `json:"id"`
	Digest string    `json:"digest,omitempty"` // of the manifest
	Stamp  string    `json:"stamp,omitempty"`  // of the file, so that another one under its name is noticed
	Time   time.Time `json:"time"`
}

const maxRecord = maxConfig * 2

func readRecord(path string, into any) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Size() > maxRecord || !st.Mode().IsRegular() {
		return errs.New(errs.Internal, "%s is damaged", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return errs.WithRemedy(errs.New(errs.Internal, "%s is damaged: %w", path, err), "remove it and bring the image in again")
	}
	return nil
}

func writeRecord(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return host.WriteFile(path, append(b, '\n'), 0o600)
}

// records reads all of a kind.
func records[T any](s *Store, dir string) ([]T, error) {
	list, err := os.ReadDir(s.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []T
	for _, e := range list {
		if filepath.Ext(e.Name()) != suffix || e.Name()[0] == '.' {
			continue
		}
		var one T
		if err := readRecord(s.path(dir, e.Name()), &one); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("image store: %w", err)
			}
			continue
		}
		all = append(all, one)
	}
	return all, nil
}
