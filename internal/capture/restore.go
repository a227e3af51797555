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
// entry in the journal at dir.
func Open(dir string, log *slog.Logger) *Manager {
	m := New(log)
	m.journal = journal.Open(dir)
	return m
}

// Restore takes up the captures of an earlier process, which append to their
// files; links gives those of a bridge. It returns how many there are. What
// cannot go on is named in the error, and forgotten.
func (m *Manager) Restore(ctx context.Context, links func(bridge string) LinkSource) (int, error) {
	entries, err := m.journal.Entries()
	failed := []error{err}
	count := 0
	for _, e := range entries {
		var s saved
		err := e.Read(&s)
		if err == nil {
			err = m.restore(ctx, &s, e, links)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("capture to %s does not go on: %w", s.Spec.Path, err), e.Remove())
			continue
		}
		count++
	}
	return count, errors.Join(failed...)
}

func (m *Manager) restore(ctx context.Context, s *saved, e *journal.Entry, links func(string) LinkSource) error {
	old := &resumption{entry: e, started: s.Started}
	if s.Link == "" {
		return m.startLinks(ctx, s.Spec, links(s.Spec.Bridge), old)
	}
	return m.startLink(ctx, s.Spec, s.Link, old)
}

// Forget drops what an earlier process left without taking it up.
func (m *Manager) Forget() error { return m.journal.Clear() }

// resumption is how a capture goes on that an earlier process began.
type resumption struct {
	entry          *journal.Entry
	started        time.Time
	packets, bytes uint64 // in the file
}

// resume makes a file ready to append to: a record of which only a part was
// written goes, and in pcapng a new section begins with head.
func (r *resumption) resume(f *os.File, enc pcap.Encoder, head []byte, snaplen int) error {
	in, err := os.Open(f.Name())
	if err != nil {
		return fileError(err)
	}
	defer in.Close()
	whole, err := r.whole(in, enc, snaplen)
	if err != nil {
		return err
	}
	if err := f.Truncate(whole); err != nil {
		return fileError(err)
	}
	if _, err := f.Seek(whole, io.SeekStart); err != nil {
		return fileError(err)
	}
	if _, sections := enc.(pcap.NG); !sections && whole > 0 {
		return nil
	}
	if _, err := f.Write(head); err != nil {
		return fileError(errors.Join(err, f.Truncate(whole)))
	}
	return nil
}

// whole returns how much of a file are whole records, and counts them. A file
// that is not what this capture wrote is refused.
func (r *resumption) whole(in io.Reader, enc pcap.Encoder, snaplen int) (int64, error) {
	b := bufio.NewReaderSize(in, 1<<20)
	var at int64
	if _, ng := enc.(pcap.NG); !ng {
		want := enc.Header(nil, snaplen)
		got := make([]byte, len(want))
		n, err := io.ReadFull(b, got)
		if torn(err) && bytes.HasPrefix(want, got[:n]) {
			return 0, nil
		}
		if err != nil || !bytes.Equal(got, want) {
			return 0, errs.New(errs.Invalid, "the file was changed: its head is not that of this capture")
		}
		at = int64(n)
	}
	for {
		n, packet, err := record(b, enc, snaplen, at == 0)
		if torn(err) {
			return at, nil
		}
		if err != nil {
			return 0, err
		}
		at += n
		if packet >= 0 {
			r.packets, r.bytes = r.packets+1, r.bytes+uint64(packet)
		}
	}
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
