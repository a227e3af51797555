package iomeshage

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A partial directory holds the file as far as it is there, and the record:
// a line of JSON that says what file it is to be, then for each whole chunk
// its number and its hash. The record is only ever appended to.
const (
	partialData   = "data"
	partialRecord = "record"
	maxRecordHead = 32 << 10
	recordEntry   = 4 + len(sum{})
)

// recordHead is the first line of a record.
type recordHead struct {
	Name  string `json:"name"`
	Size  int64  `json:"size"`
	Chunk int64  `json:"chunk"` // bytes
}

// partial is a file that is still coming.
type partial struct {
	root   *os.Root // the directory in which the file is to lie
	dir    string   // in it
	base   string   // the file's name in it
	name   string
	layout layout
	data   *os.File
	record *os.File
	fresh  bool // nothing of it was there before

	// writing is held by who writes: the kernel lets only one write to a file,
	// and the others would spend their time spinning instead of receiving.
	writing sync.Mutex
}

// openPartial makes the partial file of name, which is to lie in root, or goes
// on with the one that is there. had are the chunks that its record claims,
// which are yet to be checked. It closes root if it fails, else close does. What
// it made for nothing it removes, what was there before it leaves.
func openPartial(root *os.Root, name string, size int64) (_ *partial, had map[int]sum, err error) {
	p := &partial{root: root, dir: path.Base(partialDir(name)), base: path.Base(name), name: name, layout: layoutOf(size)}
	defer func() {
		if err != nil {
			if p.fresh {
				err = errors.Join(err, p.remove())
			}
			_ = root.Remove(p.dir) // if nothing is in it
			p.close()
			err = roomless(err, size)
		}
	}()
	if err := root.MkdirAll(p.dir, 0o755); err != nil {
		return nil, nil, err
	}
	if p.record, err = root.OpenFile(path.Join(p.dir, partialRecord), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(p.record.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, fmt.Errorf("another minimega is fetching %s into the same directory", name)
	}
	st, err := p.record.Stat()
	if err != nil {
		return nil, nil, err
	}
	p.fresh = st.Size() == 0
	if p.data, err = root.OpenFile(path.Join(p.dir, partialData), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, nil, err
	}
	head, had, err := readRecord(p.record)
	if err != nil || head != (recordHead{name, size, p.layout.chunk}) {
		return p, nil, p.begin()
	}
	return p, had, nil
}

// begin forgets what was there before.
func (p *partial) begin() error {
	p.fresh = true
	head, err := json.Marshal(recordHead{p.name, p.layout.size, p.layout.chunk})
	if err == nil {
		err = errors.Join(p.record.Truncate(0), p.data.Truncate(0))
	}
	if err == nil {
		err = p.data.Truncate(p.layout.size)
	}
	if err == nil {
		_, err = p.record.Write(append(head, '\n'))
	}
	return err
}

// readRecord reads what a record claims, as far as it makes sense.
func readRecord(r io.Reader) (recordHead, map[int]sum, error) {
	var head recordHead
	b := bufio.NewReaderSize(r, maxRecordHead)
	line, err := b.ReadSlice('\n')
	if err != nil {
		return head, nil, fmt.Errorf("record of a partial file: %w", err)
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return head, nil, fmt.Errorf("record of a partial file: %w", err)
	}
	if checkName(head.Name) != nil || head.Size < 0 || head.Size > maxSize {
		return head, nil, errors.New("record of a partial file that cannot be")
	}
	n := layoutOf(head.Size).count()
	had := map[int]sum{}
	for {
		var e [recordEntry]byte
		if _, err := io.ReadFull(b, e[:]); err != nil {
			return head, had, nil //nolint:nilerr // the last entry may be cut short
		}
		if i := binary.BigEndian.Uint32(e[:]); int64(i) < int64(n) {
			had[int(i)] = sum(e[4:])
		}
	}
}

// done records a chunk that is there.
func (p *partial) done(i int, v sum) error {
	e := binary.BigEndian.AppendUint32(make([]byte, 0, recordEntry), uint32(i))
	_, err := p.record.Write(append(e, v[:]...))
	off, n := p.layout.at(i)
	// Let the disk begin, so that the end need not wait for all at once.
	_ = unix.SyncFileRange(int(p.data.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	return roomless(err, p.layout.size)
}

// reserve takes the room on disk that the extents need, or says how much is
// missing.
func (p *partial) reserve(list []extent) error {
	var need int64
	for _, e := range list {
		need += e.Len
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(p.data.Fd()), &st); err != nil {
		return err
	}
	need -= st.Blocks * 512
	if inMemory, err := p.room(need); err != nil || inMemory {
		return err
	}
	for _, e := range list {
		err := unix.Fallocate(int(p.data.Fd()), 0, e.Off, e.Len)
		for errors.Is(err, unix.EINTR) {
			err = unix.Fallocate(int(p.data.Fd()), 0, e.Off, e.Len)
		}
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			return nil // this file system takes the room when it is written to
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
			return full(err, need, -1)
		case err != nil:
			return fmt.Errorf("reserve room: %w", err)
		}
	}
	return nil
}

// room fails if need bytes are more than what is free. inMemory is a file
// system that takes room page by page, for which the first chunk need not wait.
func (p *partial) room(need int64) (inMemory bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(p.data.Fd()), &fs); err != nil {
		return false, err
	}
	if free := int64(fs.Bavail) * fs.Bsize; need > free {
		return false, full(nil, need, free)
	}
	return fs.Type == unix.TMPFS_MAGIC, nil
}

func full(cause error, need, free int64) error {
	if free < 0 {
		return fmt.Errorf("%w: %s needed (%w)", ErrFull, mib(need), cause)
	}
	return fmt.Errorf("%w: %s needed, %s free, %s missing", ErrFull, mib(need), mib(free), mib(need-free))
}

// roomless is ErrFull if that is what err means, else err.
func roomless(err error, need int64) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return full(err, need, -1)
	}
	return err
}

// mib rounds up, so that what is missing is never nothing.
func mib(n int64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// write puts a block in place.
func (p *partial) write(b []byte, off int64) error {
	p.writing.Lock()
	_, err := p.data.WriteAt(b, off)
	p.writing.Unlock()
	if err != nil {
		return roomless(fmt.Errorf("write %s: %w", p.name, errors.Unwrap(err)), p.layout.size)
	}
	return nil
}

// zero makes a hole.
func (p *partial) zero(off, n int64) error {
	err := unix.Fallocate(int(p.data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(p.data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	}
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if nextData(p.data, off, p.layout.size) >= off+n {
		return nil
	}
	empty := make([]byte, min(n, blockSize))
	for ; n > 0; off, n = off+int64(len(empty)), n-int64(len(empty)) {
		if err := p.write(empty[:min(n, blockSize)], off); err != nil {
			return err
		}
	}
	return nil
}

// replace puts a whole chunk in place, zeros as holes.
func (p *partial) replace(b []byte, off int64) error {
	for len(b) > 0 {
		n := min(len(b), blockSize)
		var err error
		if isZero(b[:n]) {
			err = p.zero(off, int64(n))
		} else {
			err = p.write(b[:n], off)
		}
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// finish makes the partial file the file. Where a link has come there meanwhile,
// the link goes, and what it leads to stays.
func (p *partial) finish(mode fs.FileMode, mtime time.Time) error {
	if st, err := p.root.Lstat(p.base); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("%s is there and not an ordinary file", p.name)
	}
	if err := unix.Fdatasync(int(p.data.Fd())); err != nil {
		return fmt.Errorf("write %s to disk: %w", p.name, err)
	}
	if err := p.data.Chmod(mode); err != nil {
		return err
	}
	from := path.Join(p.dir, partialData)
	if err := p.root.Chtimes(from, time.Now(), mtime); err != nil {
		return err
	}
	return p.root.Rename(from, p.base)
}

func (p *partial) close() {
	_ = p.root.Close()
	if p.record != nil { // a process that is just being started has it open, too, and would keep the lock
		_ = unix.Flock(int(p.record.Fd()), unix.LOCK_UN)
	}
	for _, f := range []*os.File{p.data, p.record} {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (p *partial) remove() error { return p.root.RemoveAll(p.dir) }

// partials lists what is still coming, or was when it broke off, in one
// directory: by the directory that holds it, the name it is to have.
func partials(root *os.Root, dir string) map[string]string {
	out := map[string]string{}
	list, err := fs.Glob(root.FS(), path.Join(dir, partialPrefix+"*"))
	if err != nil {
		return out
	}
	slices.Sort(list)
	for _, at := range list {
		f, err := root.Open(path.Join(at, partialRecord))
		if err != nil {
			continue
		}
		head, _, err := readRecord(f)
		_ = f.Close()
		if err == nil && partialDir(head.Name) == at {
			out[at] = head.Name
		}
	}
	return out
}
