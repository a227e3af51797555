package capture

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"minimega/internal/capture/pcap"
	"minimega/internal/errs"
)

// Between ring and file lie up to 32 chunks of 1 MiB, made only when the disk
// is slower than the packets. They hold whole records, so that a file is
// readable whenever its writer dies.
const (
	chunkSize  = 1 << 20
	chunkStart = 32 << 10
	chunkQueue = 32
)

// chunk is a run of whole records.
type chunk struct {
	b       []byte
	packets uint64
	bytes   uint64
}

// sink writes records to a file from a goroutine of its own. All methods but
// the counters belong to one goroutine.
type sink struct {
	file   *os.File
	enc    pcap.Encoder
	cur    chunk
	queue  chan chunk
	free   sync.Pool
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
	_, err := f.Seek(int64(len(head)), 0)
	return err
}

// newSink starts the writer of a file that has its head.
func newSink(f *os.File, enc pcap.Encoder, failed func()) *sink {
	s := &sink{file: f, enc: enc, failed: failed, queue: make(chan chunk, chunkQueue), done: make(chan struct{})}
	go s.write()
	return s
}

// packet adds a record and passes a full chunk on, waiting for room.
func (s *sink) packet(iface int, sec, nsec uint32, length int, head, tail []byte) {
	s.cur.b = s.enc.Packet(s.room(), iface, sec, nsec, length, head, tail)
	s.cur.packets++
	s.cur.bytes += uint64(len(head) + len(tail))
	if len(s.cur.b) >= chunkSize-(64<<10) {
		s.pass()
	}
}

// record adds what f appends.
func (s *sink) record(f func(dst []byte) []byte) { s.cur.b = f(s.room()) }

// room is the current chunk's buffer.
func (s *sink) room() []byte {
	switch {
	case s.cur.b == nil:
		if b, ok := s.free.Get().(*[]byte); ok {
			s.cur.b = (*b)[:0]
		} else {
			s.cur.b = make([]byte, 0, chunkStart)
		}
	case cap(s.cur.b)-len(s.cur.b) < 4096 && cap(s.cur.b) < chunkSize:
		s.cur.b = append(make([]byte, 0, chunkSize), s.cur.b...)
	}
	return s.cur.b
}

func (s *sink) pass() {
	s.queue <- s.cur
	s.cur = chunk{}
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
	for c := range s.queue {
		h.set(len(s.queue) > 0)
		if s.err.Load() != nil {
			continue
		}
		if err := s.put(c); err != nil {
			s.err.Store(&err)
			s.failed()
			continue
		}
		s.packets.Add(c.packets)
		s.bytes.Add(c.bytes)
		s.free.Put(&c.b)
	}
}

// put writes a chunk. When only part of it fits, the file is cut to whole records.
func (s *sink) put(c chunk) error {
	n, err := s.file.Write(c.b)
	if err == nil {
		return nil
	}
	err = fileError(err)
	whole := s.enc.Whole(c.b, n)
	if whole < n {
		at, seekErr := s.file.Seek(0, 1)
		if seekErr == nil {
			seekErr = s.file.Truncate(at - int64(n-whole))
		}
		err = errors.Join(err, seekErr)
	}
	packets, bytes := s.enc.Count(c.b[:whole])
	s.packets.Add(packets)
	s.bytes.Add(bytes)
	return err
}
