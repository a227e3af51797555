package pcap

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// block reads one block of a pcapng file and returns its type and body.
func (r *Reader) block() (uint32, []byte, error) {
	h, err := r.start(8)
	if err != nil {
		return 0, nil, err
	}
	var head [8]byte
	copy(head[:], h)
	if binary.LittleEndian.Uint32(head[:]) == blockSection {
		magic, err := r.r.Peek(4)
		if err != nil {
			return 0, nil, fmt.Errorf("%w: a section header is cut short", ErrFormat)
		}
		switch uint32(ngOrder) {
		case binary.LittleEndian.Uint32(magic):
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(magic):
			r.order = binary.BigEndian
		default:
			return 0, nil, fmt.Errorf("%w: byte order %x", ErrFormat, magic)
		}
	}
	size := r.order.Uint32(head[4:])
	if size < blockFrame || size%4 != 0 || size > maxRecord {
		return 0, nil, fmt.Errorf("%w: a block of %d bytes", ErrFormat, size)
	}
	body, err := r.fill(int(size) - 8)
	if err != nil {
		return 0, nil, err
	}
	n := len(body) - 4
	if again := r.order.Uint32(body[n:]); again != size {
		return 0, nil, fmt.Errorf("%w: a block of %d bytes says %d at its end", ErrFormat, size, again)
	}
	return r.order.Uint32(head[:]), body[:n], nil
}

// ngBlock takes in a block that is not a packet. Unknown ones are skipped.
func (r *Reader) ngBlock(kind uint32, body []byte) error {
	switch kind {
	case blockSection:
		if len(body) < 16 || r.order.Uint16(body[4:]) != 1 {
			return fmt.Errorf("%w: a section header of another version", ErrFormat)
		}
		r.section = len(r.ifaces)
	case blockInterface:
		return r.interfaceBlock(body)
	case blockStatistics:
		return r.statistics(body)
	}
	return nil
}

// options calls f for each option of b until one says it is the last.
func (r *Reader) options(b []byte, f func(code uint16, value []byte)) {
	for len(b) >= 4 {
		code, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		b = b[4:]
		if code == optEnd || n > len(b) {
			return
		}
		f(code, b[:n])
		b = b[min(len(b), (n+3)/4*4):]
	}
}

func (r *Reader) interfaceBlock(b []byte) error {
	if len(b) < 8 || len(r.ifaces) >= maxInterfaces {
		return fmt.Errorf("%w: a bad interface, or too many", ErrFormat)
	}
	i := Interface{LinkType: int(r.order.Uint16(b)), Snaplen: int(min(r.order.Uint32(b[4:]), maxRecord))}
	c := clock{perSecond: 1e6}
	var err error
	r.options(b[8:], func(code uint16, v []byte) {
		switch {
		case code == optName:
			i.Name = string(v)
		case code == optAbout:
			i.About = string(v)
		case code == optFilter && len(v) > 0:
			i.Filter = string(v[1:])
		case code == optTsresol && len(v) == 1:
			c.perSecond, err = resolution(v[0])
		case code == optTsoffset && len(v) == 8:
			c.offset = int64(r.order.Uint64(v))
		}
	})
	r.ifaces, r.clocks = append(r.ifaces, i), append(r.clocks, c)
	return err
}

// resolution is how often per second an interface's clock ticks: a power of
// ten, or of two when the high bit is set.
func resolution(v byte) (uint64, error) {
	base, exp := uint64(10), v&0x7f
	if v&0x80 != 0 {
		base = 2
	}
	n := uint64(1)
	for range exp {
		if n > math.MaxInt64/base {
			return 0, fmt.Errorf("%w: a clock of resolution %#x", ErrFormat, v)
		}
		n *= base
	}
	return n, nil
}

func (r *Reader) time(iface int, b []byte) time.Time {
	ticks := uint64(r.order.Uint32(b))<<32 | uint64(r.order.Uint32(b[4:]))
	c := r.clocks[iface]
	frac := float64(ticks%c.perSecond) / float64(c.perSecond) * 1e9
	if c.perSecond == 1e9 {
		frac = float64(ticks % 1e9)
	}
	return time.Unix(int64(ticks/c.perSecond)+c.offset, int64(frac))
}

// iface checks an interface number of the current section.
func (r *Reader) iface(n uint32) (int, error) {
	if uint64(n) >= uint64(len(r.ifaces)-r.section) {
		return 0, fmt.Errorf("%w: interface %d was not declared", ErrFormat, n)
	}
	return r.section + int(n), nil
}

func (r *Reader) enhanced(b []byte) (Packet, error) {
	if len(b) < enhancedFixed {
		return Packet{}, fmt.Errorf("%w: a packet block is too short", ErrFormat)
	}
	i, err := r.iface(r.order.Uint32(b))
	if err != nil {
		return Packet{}, err
	}
	kept := r.order.Uint32(b[12:])
	if uint64(kept) > uint64(len(b)-enhancedFixed) {
		return Packet{}, fmt.Errorf("%w: a packet of %d bytes in a block of %d", ErrFormat, kept, len(b))
	}
	return Packet{
		Time: r.time(i, b[4:]), Interface: i,
		Length: int(r.order.Uint32(b[16:])), Data: b[enhancedFixed : enhancedFixed+kept],
	}, nil
}

// simple is a packet without time, of the section's first interface.
func (r *Reader) simple(b []byte) (Packet, error) {
	i, err := r.iface(0)
	if err != nil || len(b) < 4 {
		return Packet{}, fmt.Errorf("%w: a simple packet without interface or length", ErrFormat)
	}
	length := int(r.order.Uint32(b))
	kept := min(length, len(b)-4)
	if s := r.ifaces[i].Snaplen; s > 0 {
		kept = min(kept, s)
	}
	return Packet{Interface: i, Length: length, Data: b[4 : 4+kept]}, nil
}

func (r *Reader) statistics(b []byte) error {
	if len(b) < 12 {
		return fmt.Errorf("%w: a statistics block is too short", ErrFormat)
	}
	i, err := r.iface(r.order.Uint32(b))
	if err != nil {
		return err
	}
	s := &Statistics{Received: -1, Dropped: -1}
	r.options(b[12:], func(code uint16, v []byte) {
		switch {
		case code == optComment:
			s.Comment = string(v)
		case len(v) != 8:
		case code == optStart:
			s.Start = r.time(i, v)
		case code == optStop:
			s.End = r.time(i, v)
		case code == optReceived:
			s.Received = int64(r.order.Uint64(v))
		case code == optDropped:
			s.Dropped = int64(r.order.Uint64(v))
		}
	})
	r.ifaces[i].Stats = s
	return nil
}
