package iomeshage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"minimega/pkg/iomeshage/internal/blake3"
)

// identity is a file in one state: a write changes it.
type identity struct {
	dev, ino           uint64
	size, mtime, ctime int64 // bytes, ns
}

func identityOf(st fs.FileInfo) identity {
	id := identity{size: st.Size(), mtime: st.ModTime().UnixNano()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		id.dev, id.ino, id.ctime = uint64(sys.Dev), sys.Ino, sys.Ctim.Nano()
	}
	return id
}

// modeBits are those of a mode that travel.
const modeBits = 0o7777

// wireMode are the bits of a mode that travel. Owners do not, all comes to
// belong to who runs the daemon, so that a set-id bit is only right for what is
// root's already.
func wireMode(st fs.FileInfo) uint32 {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return uint32(st.Mode().Perm())
	}
	m := sys.Mode & modeBits
	if sys.Uid != 0 {
		m &^= syscall.S_ISUID
	}
	if sys.Gid != 0 {
		m &^= syscall.S_ISGID
	}
	return m
}

// fileMode is a mode that came, without the set-id bits unless they are to stay.
func fileMode(m uint32, setID bool) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, is := range map[uint32]fs.FileMode{syscall.S_ISUID: fs.ModeSetuid, syscall.S_ISGID: fs.ModeSetgid, syscall.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 && (setID || bit == syscall.S_ISVTX) {
			mode |= is
		}
	}
	return mode
}

// version is how other hosts call a file in this state.
func (id identity) version() string {
	s := blake3.Sum(fmt.Appendf(nil, "%+v", id))
	return fmt.Sprintf("%x", s[:16])
}

// openFile opens a regular file, and never waits as for a named pipe.
func openFile(root *os.Root, name string) (*os.File, identity, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, identity{}, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not an ordinary file")}
	}
	if err == nil && st.Size() > maxSize {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("too large")}
	}
	if err != nil {
		_ = f.Close()
		return nil, identity{}, err
	}
	return f, identityOf(st), nil
}

// unchanged reports whether f is still as id says.
func unchanged(f *os.File, id identity) bool {
	st, err := f.Stat()
	return err == nil && identityOf(st) == id
}

// sums are the hashes of the chunks of one file, as far as they are known.
type sums struct {
	mu    sync.Mutex // guards the fields below
	dense bool       // the file is known to have no holes
	known []bool
	list  []sum
	log   []int // chunks, in the order in which their hashes were found

	turn chan struct{} // held by who computes hashes for their own sake
	used time.Time     // guarded by the cache
}

func newSums(n int) *sums {
	return &sums{known: make([]bool, n), list: make([]sum, n), turn: make(chan struct{}, 1)}
}

func (s *sums) get(i int) (sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list[i], s.known[i]
}

func (s *sums) set(i int, v sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known[i] {
		s.known[i], s.list[i] = true, v
		s.log = append(s.log, i)
	}
}

// note keeps in mind whether the file has holes: to look for them at each chunk
// takes a lock for which those wait who write to the file.
func (s *sums) note(list []extent, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dense = len(list) == 1 && list[0] == extent{0, size}
}

func (s *sums) isDense() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dense
}

// since returns the chunks whose hashes were found after the first n.
func (s *sums) since(n int) (chunks []int, list []sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.log[min(n, len(s.log)):] {
		chunks, list = append(chunks, i), append(list, s.list[i])
	}
	return chunks, list
}

// all returns the hashes if every one is known.
func (s *sums) all() ([]sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list), len(s.log) == len(s.list)
}

// hashCache remembers the hashes of files by their state.
type hashCache struct {
	mu    sync.Mutex // guards the fields below
	files map[identity]*sums
	held  int // hashes
}

const (
	maxCachedFiles  = 4096
	maxCachedHashes = 2 << 20 // 64 MiB
)

func newHashCache() *hashCache { return &hashCache{files: map[identity]*sums{}} }

// of returns the hashes of a file, to be read and added to.
func (c *hashCache) of(id identity) *sums {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.files[id]
	if s == nil {
		s = newSums(layoutOf(id.size).count())
		c.files[id] = s
		c.held += len(s.list)
	}
	s.used = time.Now()
	for len(c.files) > 1 && (len(c.files) > maxCachedFiles || c.held > maxCachedHashes) {
		c.dropOldestLocked(id)
	}
	return s
}

// put remembers the hashes of a file that has come.
func (c *hashCache) put(id identity, s *sums) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[id] == nil {
		c.held += len(s.list)
		c.files[id] = s
		s.used = time.Now()
	}
}

func (c *hashCache) dropOldestLocked(keep identity) {
	var oldest identity
	var at time.Time
	for id, s := range c.files {
		if id != keep && (at.IsZero() || s.used.Before(at)) {
			oldest, at = id, s.used
		}
	}
	c.held -= len(c.files[oldest].list)
	delete(c.files, oldest)
}
