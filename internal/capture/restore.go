package capture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
	"time"

	"minimega/internal/capture/pcap"
	"minimega/internal/errs"
	"minimega/internal/journal"
)

// saved is what the journal knows of a capture.
type saved struct {
	Spec    Spec
	Link    string // interface; "" for the links of Spec.Bridge
	Started time.Time
}

// Open makes a manager whose captures a later one can take up: each has an
// entry in the journal at dir, and a process that holds its socket.
func Open(dir string, log *slog.Logger) *Manager {
	m := New(log)
	m.dir, m.journal = dir, journal.Open(dir)
	return m
}

// Restore takes up the captures of an earlier process, which append to their
// files; links gives those of a bridge. What was captured meanwhile and until
// that process was killed is in the files then, unless nothing holds it. It
// returns how many there are. What cannot go on is named in the error, and
// forgotten.
func (m *Manager) Restore(ctx context.Context, links func(bridge string) LinkSource) (int, error) {
	entries, err := m.journal.Entries()
	found, err2 := holders(m.dir)
	failed := []error{err, err2}
	count := 0
	for _, e := range entries {
		var s saved
		err := e.Read(&s)
		if err == nil {
			err = m.restore(ctx, &s, m.resumption(e, s.Started, found), links)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("capture to %s does not go on: %w", s.Spec.Path, err), e.Remove())
			continue
		}
		delete(found, e.Path())
		count++
	}
	return count, errors.Join(append(failed, endHolders(found))...)
}

// resumption gets what is kept for a capture.
func (m *Manager) resumption(e *journal.Entry, started time.Time, found map[string]int) *resumption {
	r := &resumption{entry: e, started: started}
	pid, ok := found[e.Path()]
	if !ok {
		return r
	}
	kept, err := borrow(pid, e.Path())
	if err == nil {
		r.kept = kept
		return r
	}
	m.log.Warn("packets that an earlier minimega had not yet written are lost", "error", err)
	if err := endHolders(map[string]int{e.Path(): pid}); err != nil {
		m.log.Warn("the process that holds a capture's socket remains", "error", err)
	}
	delete(found, e.Path())
	return r
}

func (m *Manager) restore(ctx context.Context, s *saved, old *resumption, links func(string) LinkSource) error {
	start := func() error { return m.startLink(ctx, s.Spec, s.Link, old) }
	if s.Link == "" {
		start = func() error { return m.startLinks(ctx, s.Spec, links(s.Spec.Bridge), old) }
	}
	err := start()
	if err != nil && old.keeps() {
		err = errors.Join(err, old.kept.close(), old.kept.holder.Close())
	}
	return err
}

// Forget drops what an earlier process left without taking it up, and returns a
// line for each capture. Their files stay.
func (m *Manager) Forget() ([]string, error) {
	found, bad := holders(m.dir)
	lines, err := journal.Drop(m.journal, func(s saved) string { return "capture to " + s.Spec.Path })
	return lines, errors.Join(bad, err, endHolders(found))
}

// resumption is how a capture goes on that an earlier process began.
type resumption struct {
	entry   *journal.Entry
	started time.Time
	kept    *kept // nil if nothing was
}

// keeps reports whether socket and memory of the earlier process are there.
func (r *resumption) keeps() bool { return r != nil && r.kept != nil }

// resume makes a file ready to append to, and notes in m where and what is in
// it. What was kept tells to the byte what the file has, and the rest of it.
func (r *resumption) resume(m *memory, f *os.File, enc pcap.Encoder, head []byte, snaplen int) error {
	if r.keeps() {
		done, err := r.proceed(m, f, enc)
		if done || err != nil {
			return err
		}
	}
	at, packets, bytes, err := repair(f, enc, head, snaplen)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return fileError(err)
	}
	m.file.store(record4{m.file.current()[0], uint64(at), packets, bytes})
	*m.word(wordInode) = inode(info)
	if !r.keeps() {
		return nil
	}
	_, err = r.proceed(m, f, enc)
	return err
}

// inode tells a file from another that has got its name.
func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// proceed writes what lay between ring and file. It does nothing if the file is
// another, or shorter than it was.
func (r *resumption) proceed(m *memory, f *os.File, enc pcap.Encoder) (done bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, fileError(err)
	}
	length := int64(m.file.current()[1])
	if info.Size() < length || inode(info) != *m.word(wordInode) {
		return false, nil
	}
	if err := f.Truncate(length); err != nil { // of a chunk that was being written
		return false, fileError(err)
	}
	rest, err := m.pending()
	if err != nil {
		return false, err
	}
	for _, c := range rest {
		c.packets, c.bytes = enc.Count(c.b)
		if err := put(f, enc, m, c); err != nil {
			return false, err
		}
	}
	m.reader.store(record4{m.reader.current()[0], m.file.current()[0] + 1, noSlot, 0})
	return true, nil
}

// repair makes a file ready that may end anywhere: a record of which only a part
// was written goes, and in pcapng a new section begins with head. It returns
// the length then, the packets and their bytes.
func repair(f *os.File, enc pcap.Encoder, head []byte, snaplen int) (at int64, packets, bytes uint64, err error) {
	in, err := os.Open(f.Name())
	if err != nil {
		return 0, 0, 0, fileError(err)
	}
	defer in.Close()
	at, packets, bytes, err = whole(in, enc, snaplen)
	if err != nil {
		return 0, 0, 0, err
	}
	if err := f.Truncate(at); err != nil {
		return 0, 0, 0, fileError(err)
	}
	if _, sections := enc.(pcap.NG); !sections && at > 0 {
		return at, packets, bytes, nil
	}
	if _, err := f.WriteAt(head, at); err != nil {
		return 0, 0, 0, fileError(errors.Join(err, f.Truncate(at)))
	}
	return at + int64(len(head)), packets, bytes, nil
}

// whole returns how much of a file are whole records, and counts packets and
// their bytes. A file that is not what this capture wrote is refused.
func whole(in io.Reader, enc pcap.Encoder, snaplen int) (at int64, packets, kept uint64, err error) {
	b := bufio.NewReaderSize(in, 1<<20)
	if _, ng := enc.(pcap.NG); !ng {
		if at, err = classicHeader(b, enc.Header(nil, snaplen)); at == 0 || err != nil {
			return 0, 0, 0, err
		}
	}
	for {
		n, packet, err := record(b, enc, snaplen, at == 0)
		if torn(err) {
			return at, packets, kept, nil
		}
		if err != nil {
			return 0, 0, 0, err
		}
		at += n
		if packet >= 0 {
			packets, kept = packets+1, kept+uint64(packet)
		}
	}
}

// classicHeader passes over the head of a pcap file, which must be as wanted; 0 if
// it was not written to its end.
func classicHeader(in io.Reader, want []byte) (int64, error) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(in, got)
	if torn(err) && bytes.HasPrefix(want, got[:n]) {
		return 0, nil
	}
	if err != nil || !bytes.Equal(got, want) {
		return 0, errs.New(errs.Invalid, "the file was changed: its head is not that of this capture")
	}
	return int64(n), nil
}

func torn(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// Sizes in the records of both formats, see package pcap.
const (
	classicHead  = 16
	blockHead    = 8
	blockLeast   = 12
	blockMost    = 16 << 20
	blockPacket  = 6 // enhanced packet
	packetKept   = 20
	sectionStart = 0x0a0d0d0a
)

// record passes over one record and returns its size, and how many bytes of a
// packet it holds, -1 for none.
func record(b *bufio.Reader, enc pcap.Encoder, snaplen int, first bool) (size int64, packet int, err error) {
	_, ng := enc.(pcap.NG)
	if !ng {
		head, err := b.Peek(classicHead)
		if err != nil {
			return 0, 0, err
		}
		packet = int(binary.LittleEndian.Uint32(head[8:]))
		if packet > snaplen {
			return 0, 0, errs.New(errs.Invalid, "the file was changed: a packet is longer than the capture kept")
		}
		n, err := b.Discard(classicHead + packet)
		return int64(n), packet, err
	}
	head, err := b.Peek(blockHead)
	if err != nil {
		return 0, 0, err
	}
	kind, length := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	if length < blockLeast || length > blockMost || length%4 != 0 || first && kind != sectionStart {
		return 0, 0, errs.New(errs.Invalid, "the file was changed: it has no block where one must be")
	}
	packet = -1
	if kind == blockPacket {
		head, err := b.Peek(packetKept + 4)
		if err != nil {
			return 0, 0, err
		}
		packet = int(binary.LittleEndian.Uint32(head[packetKept:]))
	}
	n, err := b.Discard(int(length))
	return int64(n), packet, err
}
