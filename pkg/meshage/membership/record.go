package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Record is what a node says of itself, in the form in which it travels:
//
//	key 8, version, boot 8, flags, ID, name, context,
//	number of addresses, addresses, number of neighbours, their keys 8 each
//
// Neighbours are sorted and named by key, the first eight bytes of the SHA-256
// of their ID: a fourth of the size, and a node that is not there anyway has no
// ID to show.
type record struct {
	key     uint64
	version uint64
	boot    uint64
	gone    bool
	crowded bool
	id      ID
	name    string
	context string
	addrs   []string
	peers   []uint64
	frame   []byte // length, body, length, signature: as it is passed on
}

// body encodes what is signed.
func (r *record) body() []byte {
	b := make([]byte, 0, 64+len(r.id)+len(r.name)+8*len(r.peers))
	b = binary.BigEndian.AppendUint64(b, r.key)
	b = binary.AppendUvarint(b, r.version)
	b = binary.BigEndian.AppendUint64(b, r.boot)
	b = append(b, flag(r.gone, flagGone)|flag(r.crowded, flagCrowded))
	b = appendSized(appendSized(appendSized(b, r.id), r.name), r.context)
	b = binary.AppendUvarint(b, uint64(len(r.addrs)))
	for _, a := range r.addrs {
		b = appendSized(b, a)
	}
	b = binary.AppendUvarint(b, uint64(len(r.peers)))
	for _, p := range r.peers {
		b = binary.BigEndian.AppendUint64(b, p)
	}
	return b
}

// seal makes the frame.
func (r *record) seal(sign func([]byte) []byte) {
	body := r.body()
	var sig []byte
	if sign != nil {
		sig = sign(body)
	}
	r.frame = appendSized(appendSized(make([]byte, 0, len(body)+len(sig)+4), body), sig)
}

// maxBody is what a record at all its limits takes.
const maxBody = 8 + 10 + 8 + 1 + 2 + MaxID + 2*(2+MaxName) + 1 + MaxAddrs*(2+MaxAddr) + 2 + 8*MaxPeers

// nextFrame cuts the first record off an update. It reads only so far as is
// needed to tell whether the record is new.
func nextFrame(c *cursor) (f rawFrame) {
	start := c.b
	f.body = c.sized("record", maxBody)
	f.sig = c.sized("signature", MaxSig)
	if c.err != nil {
		return rawFrame{}
	}
	f.all = start[:len(start)-len(c.b)]
	head := cursor{b: f.body}
	f.key, f.version, f.boot = head.fixed(), head.uvarint(), head.fixed()
	if head.err != nil {
		c.fail(head.err)
	}
	return f
}

// rawFrame is a record that was not yet decoded.
type rawFrame struct {
	key, version, boot uint64
	all, body, sig     []byte
}

var errOrder = errors.New("neighbours of a record out of order")

// decode checks all of a record but its signature, and copies what it keeps.
func (f rawFrame) decode() (*record, error) {
	c := cursor{b: f.body}
	r := &record{key: c.fixed(), version: c.uvarint(), boot: c.fixed()}
	flags := c.byte()
	r.gone, r.crowded = flags&flagGone != 0, flags&flagCrowded != 0
	r.id = ID(c.sized("ID", MaxID))
	r.name = string(c.sized("name", MaxName))
	r.context = string(c.sized("context", MaxName))
	r.addrs = decodeAddrs(&c)
	r.peers = decodePeers(&c, r.key)
	switch err := c.end(); {
	case err != nil:
		return nil, err
	case r.id == "" || keyOf(r.id) != r.key:
		return nil, errors.New("record whose key is not that of its ID")
	case r.version == 0 || r.version > maxVersion:
		return nil, fmt.Errorf("record of version %d", r.version)
	case flags > flagGone|flagCrowded:
		return nil, fmt.Errorf("record with unknown flags %#x", flags)
	case r.gone && len(r.peers) > 0:
		return nil, errors.New("record of a node that left and has neighbours")
	}
	r.frame = append([]byte(nil), f.all...)
	return r, nil
}

func decodeAddrs(c *cursor) []string {
	n := c.uvarint()
	if n > MaxAddrs {
		c.fail(fmt.Errorf("record with %d addresses, the limit is %d", n, MaxAddrs))
		return nil
	}
	var addrs []string
	for range n {
		a := c.sized("address", MaxAddr)
		if len(a) == 0 {
			c.fail(errors.New("empty address"))
			return nil
		}
		addrs = append(addrs, string(a))
	}
	return addrs
}

func decodePeers(c *cursor, self uint64) []uint64 {
	n := c.uvarint()
	if n > MaxPeers || n*8 > uint64(len(c.b)) {
		c.fail(fmt.Errorf("record with %d neighbours, or cut short; the limit is %d", n, MaxPeers))
		return nil
	}
	peers := make([]uint64, n)
	for i := range peers {
		peers[i] = c.fixed()
		if peers[i] == self || i > 0 && peers[i] <= peers[i-1] {
			c.fail(errOrder)
			return nil
		}
	}
	return peers
}
