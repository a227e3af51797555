package pcap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Limits of what a reader takes.
const (
	maxRecord     = 1 << 20 // bytes of a packet or block
	maxInterfaces = 1 << 16
)

// ErrFormat is wrapped by errors about files that are no capture files or break the format.
var ErrFormat = errors.New("not a valid capture file")

// Reader iterates over the packets of a capture file.
type Reader struct {
	r     *bufio.Reader
	close io.Closer
	order binary.ByteOrder
	ng    bool
	nano  bool
	buf   []byte

	ifaces  []Interface
	clocks  []clock // one per interface
	section int     // index of the first interface of the current section
}

// clock says how an interface of a pcapng file counts time.
type clock struct {
	perSecond uint64
	offset    int64 // seconds
}

// Open opens a capture file of either format, in either byte order.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.close = f
	return r, nil
}

// NewReader reads a capture from r.
func NewReader(r io.Reader) (*Reader, error) {
	rd := &Reader{r: bufio.NewReaderSize(r, 64<<10)}
	head, err := rd.r.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("%w: it ends within its first four bytes", ErrFormat)
	}
	if binary.LittleEndian.Uint32(head) == blockSection {
		rd.ng = true
		kind, body, err := rd.block()
		if err != nil {
			return nil, err
		}
		return rd, rd.ngBlock(kind, body)
	}
	return rd, rd.classicHeader()
}

// Close closes the file.
func (r *Reader) Close() error {
	if r.close == nil {
		return nil
	}
	return r.close.Close()
}

// Interfaces returns what the file has told of its interfaces so far.
func (r *Reader) Interfaces() []Interface { return append([]Interface(nil), r.ifaces...) }

// Next returns the next packet. Its data is valid until the next call. The
// error is io.EOF at the end of the file, io.ErrUnexpectedEOF when the file
// ends within a record, or wraps ErrFormat.
func (r *Reader) Next() (Packet, error) {
	if !r.ng {
		return r.classicPacket()
	}
	for {
		kind, body, err := r.block()
		if err != nil {
			return Packet{}, err
		}
		switch kind {
		case blockEnhanced:
			return r.enhanced(body)
		case blockSimple:
			return r.simple(body)
		}
		if err := r.ngBlock(kind, body); err != nil {
			return Packet{}, err
		}
	}
}

// fill reads n bytes into the buffer. At most maxRecord are ever asked for.
func (r *Reader) fill(n int) ([]byte, error) {
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		if errors.Is(err, io.EOF) && n > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return r.buf, nil
}

// start reads the first n bytes of a record; a clean end is io.EOF.
func (r *Reader) start(n int) ([]byte, error) {
	if _, err := r.r.Peek(1); err != nil {
		return nil, err
	}
	return r.fill(n)
}

func (r *Reader) classicHeader() error {
	h, err := r.start(24)
	if err != nil {
		return fmt.Errorf("%w: its header is cut short", ErrFormat)
	}
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := o.Uint32(h); m == magicMicro || m == magicNano {
			r.order, r.nano = o, m == magicNano
		}
	}
	if r.order == nil {
		return fmt.Errorf("%w: it starts with %x", ErrFormat, h[:4])
	}
	if major := r.order.Uint16(h[4:]); major != 2 {
		return fmt.Errorf("%w: pcap version %d", ErrFormat, major)
	}
	snaplen := min(r.order.Uint32(h[16:]), maxRecord)
	r.ifaces = []Interface{{Snaplen: int(snaplen), LinkType: int(r.order.Uint32(h[20:]) & 0xffff)}}
	return nil
}

func (r *Reader) classicPacket() (Packet, error) {
	h, err := r.start(16)
	if err != nil {
		return Packet{}, err
	}
	sec, frac := r.order.Uint32(h), r.order.Uint32(h[4:])
	kept, length := r.order.Uint32(h[8:]), r.order.Uint32(h[12:])
	if kept > maxRecord {
		return Packet{}, fmt.Errorf("%w: a packet of %d bytes", ErrFormat, kept)
	}
	if !r.nano {
		frac *= 1000
	}
	data, err := r.fill(int(kept))
	if err != nil {
		return Packet{}, err
	}
	return Packet{Time: time.Unix(int64(sec), int64(frac)), Length: int(length), Data: data}, nil
}
