package capture

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/capture/pcap"
	"minimega/internal/errs"
)

// Between ring and file lie up to 32 chunks of 1 MiB, which take memory only
// when the disk is slower than the packets. They hold whole records, so that a
// file is readable whenever its writer dies.
const (
	chunkSize  = 1 << 20
	chunkStart = 32 << 10
	chunkQueue = 32
	chunkRests = time.Second // until unused memory is given back
)

// chunk is a run of whole records, in a slot of the memory.
type chunk struct {
	number  uint64 // from 1
	slot    int
	b       []byte
	packets uint64
	bytes   uint64
}

// sink writes records to a file from a goroutine of its own. All methods but
// the counters belong to one goroutine.
type sink struct {
	file   *os.File
	enc    pcap.Encoder
	mem    *memory
	blocks uint64 // of the ring, taken in
	cur    chunk  // its b is nil while it has no slot
	queue  chan chunk
	failed func() // called once, when writing has failed
	done   chan struct{}

	packets atomic.Uint64 // in the file
	bytes   atomic.Uint64
	err     atomic.Pointer[error]
}

// openFile opens the file without touching what it holds. It reports whether
// the file is new; then only its owner may read it.
func openFile(path string) (f *os.File, created bool, err error) {
	const flags = os.O_WRONLY | syscall.O_NONBLOCK
	f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return f, true, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return nil, false, fileError(err)
	}
	if f, err = os.OpenFile(path, flags, 0); err != nil {
		return nil, false, fileError(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return nil, false, err
	}
	return f, false, nil
}

// fileError gives an error of the file system its kind and remedy.
func fileError(err error) error {
	err = fmt.Errorf("capture file: %w", err)
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		return errs.WithRemedy(errs.Wrap(errs.Resource, err), "make room or capture to another disk")
	case errors.Is(err, os.ErrNotExist):
		return errs.WithRemedy(errs.Wrap(errs.NotFound, err), "create the directory first")
	case errors.Is(err, os.ErrPermission), errors.Is(err, unix.EROFS):
		return errs.Wrap(errs.Permission, err)
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENAMETOOLONG):
		return errs.Wrap(errs.Invalid, err)
	}
	return err
}

// begin empties the file and writes its head; on an error the file is as good as empty.
func begin(f *os.File, head []byte) error {
	if err := f.Truncate(0); err != nil {
		return fileError(err)
	}
	if _, err := f.WriteAt(head, 0); err != nil {
		return fileError(errors.Join(err, f.Truncate(0)))
	}
	return nil
}

// newSink starts the writer of a file, which goes on where mem says.
func newSink(f *os.File, enc pcap.Encoder, mem *memory, failed func()) *sink {
	s := &sink{file: f, enc: enc, mem: mem, failed: failed, queue: make(chan chunk, chunkQueue), done: make(chan struct{})}
	s.blocks, s.cur.number = mem.reader.current()[0], mem.reader.current()[1]
	s.packets.Store(mem.file.current()[2])
	s.bytes.Store(mem.file.current()[3])
	go s.write()
	return s
}

// packet adds a record, for which reserve has made room.
func (s *sink) packet(iface int, sec, nsec uint32, length int, head, tail []byte) {
	s.cur.b = s.enc.Packet(s.cur.b, iface, sec, nsec, length, head, tail)
	s.cur.packets++
	s.cur.bytes += uint64(len(head) + len(tail))
}

// record adds what f appends, at most recordMost bytes.
func (s *sink) record(f func(dst []byte) []byte) {
	s.reserve(recordMost)
	s.cur.b = f(s.cur.b)
	s.commit(s.blocks)
}

// recordMost is more than any record takes that is not a packet: a few texts of
// at most 64 KiB.
const recordMost = 256 << 10

// reserve makes room for n bytes, waiting for it if the writer is behind. That
// of a block is enough for its records: the kernel's own heads are longer.
func (s *sink) reserve(n int) {
	if s.cur.b != nil && cap(s.cur.b)-len(s.cur.b) < n {
		s.pass()
	}
	if s.cur.b == nil {
		s.cur.slot = s.mem.take()
		s.cur.b = s.mem.slot(s.cur.slot)[:0]
	}
}

// commit makes what was added count, together with the blocks that it is from.
func (s *sink) commit(blocks uint64) {
	s.blocks = blocks
	s.mem.reader.store(record4{blocks, s.cur.number, uint64(s.cur.slot), uint64(len(s.cur.b))})
}

// pass hands the current chunk to the writer.
func (s *sink) pass() {
	next := s.cur.number + 1
	*s.mem.label(s.cur.slot) = [slotWords]uint64{s.cur.number, uint64(len(s.cur.b))}
	s.mem.reader.store(record4{s.blocks, next, noSlot, 0})
	s.queue <- s.cur
	s.cur = chunk{number: next}
}

// flush passes the current chunk on if the writer has nothing to do. It
// reports whether something stays behind.
func (s *sink) flush() (left bool) {
	if len(s.cur.b) > 0 && len(s.queue) == 0 {
		s.pass()
	}
	return len(s.cur.b) > 0
}

// close writes what is left and closes the file.
func (s *sink) close() error {
	if len(s.cur.b) > 0 {
		s.pass()
	}
	close(s.queue)
	<-s.done
	return s.file.Close()
}

// failure is why writing ended, or nil.
func (s *sink) failure() error {
	if e := s.err.Load(); e != nil {
		return *e
	}
	return nil
}

// write is the goroutine of the sink. After a failure it only empties the queue.
func (s *sink) write() {
	defer close(s.done)
	var h hurry
	defer func() { h.set(false) }()
	rest := time.NewTimer(chunkRests)
	defer rest.Stop()
	for {
		select {
		case c, ok := <-s.queue:
			if !ok {
				return
			}
			h.set(len(s.queue) > 0)
			s.take(c)
			rest.Reset(chunkRests)
		case <-rest.C:
			s.mem.trim()
		}
	}
}

// take writes a chunk, unless writing has failed.
func (s *sink) take(c chunk) {
	defer s.mem.give(c.slot, len(c.b))
	if s.err.Load() != nil {
		return
	}
	if err := s.put(c); err != nil {
		s.err.Store(&err)
		s.failed()
	}
	s.packets.Store(s.mem.file.current()[2])
	s.bytes.Store(s.mem.file.current()[3])
}

func (s *sink) put(c chunk) error { return put(s.file, s.enc, s.mem, c) }

// put writes a chunk and notes that. When only part of it fits, the file is cut
// to whole records.
func put(f *os.File, enc pcap.Encoder, m *memory, c chunk) error {
	was := *m.file.current()
	at := int64(was[1])
	_, err := f.WriteAt(c.b, at)
	if err == nil {
		m.file.store(record4{c.number, was[1] + uint64(len(c.b)), was[2] + c.packets, was[3] + c.bytes})
		return nil
	}
	err = fileError(err)
	n := 0 // WriteAt tells less than it wrote
	if info, statErr := f.Stat(); statErr == nil {
		n = int(min(max(info.Size()-at, 0), int64(len(c.b))))
	}
	whole := enc.Whole(c.b, n)
	if whole < n {
		err = errors.Join(err, f.Truncate(at+int64(whole)))
	}
	packets, bytes := enc.Count(c.b[:whole])
	m.file.store(record4{c.number, was[1] + uint64(whole), was[2] + packets, was[3] + bytes})
	return err
}
