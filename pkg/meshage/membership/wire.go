package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of messages, their first byte. Numbers are big endian or uvarint;
// strings have their length before them.
//
//	hello    protocol, flags, boot 8, version, digest 8     first on a link
//	beat     flags, milliseconds to the next, clock, digest 8    sign of life
//	summary  flags, from 8, to 8, {key 8, version}...       all that the sender has from key to key
//	update   {length, body, length, signature}...           records
//	prune    ask, hard ask, yes or no                       may this link go?
//	bye      reason                                         last on a link
const (
	kindHello = iota + 1
	kindBeat
	kindSummary
	kindUpdate
	kindPrune
	kindBye
)

const (
	flagPinned = 1 // hello: the link is pinned at the sender's end
	flagProbe  = 1 // beat: answer at once
	flagWant   = 1 // summary: send yours

	flagGone    = 1 // record: the node has left
	flagCrowded = 2 // record: it has far more links than it wants
)

const (
	pruneAsk = iota + 1
	pruneHard
	pruneYes
	pruneNo
)

const (
	byeTrim = iota + 1
	byeHangup
	byeLeave
)

var errShort = errors.New("message ends too early")

// keyOf is the short form of an ID that stands for it in records.
func keyOf(id ID) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:])
}

// cursor reads a message of unknown honesty. After the first error all reads
// give zero values.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.fail(errShort)
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err, c.b = err, nil
	}
}

func (c *cursor) byte() byte {
	if b := c.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) fixed() uint64 {
	if b := c.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail(errShort)
		return 0
	}
	c.b = c.b[n:]
	return v
}

// sized reads bytes with their length before them.
func (c *cursor) sized(what string, limit int) []byte {
	n := c.uvarint()
	if n > uint64(limit) {
		c.fail(fmt.Errorf("%s of %d bytes, the limit is %d", what, n, limit))
		return nil
	}
	return c.bytes(int(n))
}

func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail(fmt.Errorf("%d bytes too many", len(c.b)))
	}
	return c.err
}

func appendSized[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

type hello struct {
	pinned  bool
	boot    uint64
	version uint64
	digest  uint64
}

func (h hello) encode() []byte {
	b := []byte{kindHello, protocol, flag(h.pinned, flagPinned)}
	b = binary.BigEndian.AppendUint64(b, h.boot)
	b = binary.AppendUvarint(b, h.version)
	return binary.BigEndian.AppendUint64(b, h.digest)
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

func decodeHello(b []byte) (hello, error) {
	c := cursor{b: b}
	if p := c.byte(); c.err == nil && p != protocol {
		c.fail(fmt.Errorf("it speaks version %d of the membership protocol, this node %d", p, protocol))
	}
	h := hello{pinned: c.byte()&flagPinned != 0, boot: c.fixed(), version: c.uvarint(), digest: c.fixed()}
	return h, c.end()
}

type beat struct {
	probe    bool
	interval uint64 // milliseconds
	clock    uint64 // milliseconds since the sender began
	digest   uint64
}

func (p beat) encode() []byte {
	b := binary.AppendUvarint([]byte{kindBeat, flag(p.probe, flagProbe)}, p.interval)
	b = binary.AppendUvarint(b, p.clock)
	return binary.BigEndian.AppendUint64(b, p.digest)
}

func decodeBeat(b []byte) (beat, error) {
	c := cursor{b: b}
	p := beat{probe: c.byte()&flagProbe != 0, interval: c.uvarint(), clock: c.uvarint(), digest: c.fixed()}
	return p, c.end()
}

// entry says which version of a record the sender of a summary has.
type entry struct{ key, version uint64 }

// summary lists, sorted by key, all that its sender can reach from one key to
// another, both included.
type summary struct {
	want     bool
	from, to uint64
	entries  []entry
}

// summaryEntries bounds a summary: 18 bytes for each fit a message.
const summaryEntries = 4096

func (s summary) encode() []byte {
	b := make([]byte, 0, 18+16*len(s.entries))
	b = append(b, kindSummary, flag(s.want, flagWant))
	b = binary.BigEndian.AppendUint64(b, s.from)
	b = binary.BigEndian.AppendUint64(b, s.to)
	for _, e := range s.entries {
		b = binary.BigEndian.AppendUint64(b, e.key)
		b = binary.AppendUvarint(b, e.version)
	}
	return b
}

func decodeSummary(b []byte) (summary, error) {
	c := cursor{b: b}
	s := summary{want: c.byte()&flagWant != 0, from: c.fixed(), to: c.fixed()}
	for last := s.from; c.err == nil && len(c.b) > 0; {
		e := entry{c.fixed(), c.uvarint()}
		switch {
		case c.err != nil:
		case len(s.entries) == summaryEntries:
			c.fail(fmt.Errorf("summary of more than %d entries", summaryEntries))
		case e.key < last || e.key > s.to || len(s.entries) > 0 && e.key == last:
			c.fail(errors.New("summary out of order"))
		default:
			s.entries = append(s.entries, e)
			last = e.key
		}
	}
	return s, c.err
}
