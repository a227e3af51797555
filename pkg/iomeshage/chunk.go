package iomeshage

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash"

	"github.com/zeebo/blake3"
)

const (
	// blockSize is what is read, hashed and sent in one go: it stays in a
	// core's second level cache meanwhile.
	blockSize = 256 << 10
	minChunk  = 4 << 20
	maxChunk  = 16 << 20
	// maxSize bounds a file, so that its hashes are at most 32 MiB.
	maxSize = 16 << 40
	// manyChunks is when larger chunks are taken.
	manyChunks = 1024
)

// chunkSize is how a file of size bytes is cut; all hosts agree on it.
func chunkSize(size int64) int64 {
	c := int64(minChunk)
	for c < maxChunk && size > c*manyChunks {
		c *= 2
	}
	return c
}

// layout is how a file is cut.
type layout struct{ size, chunk int64 }

func layoutOf(size int64) layout { return layout{size, chunkSize(size)} }

func (l layout) count() int { return int((l.size + l.chunk - 1) / l.chunk) }

// at is where a chunk begins, and how long it is.
func (l layout) at(i int) (off, n int64) {
	off = int64(i) * l.chunk
	return off, min(l.chunk, l.size-off)
}

// sum is the hash of a chunk, or of a file.
type sum [32]byte

func (s sum) String() string { return hex.EncodeToString(s[:]) }

// chunkHash is the hash of a chunk: BLAKE3 over its blocks that are not all
// zero (of the hashes that a lying peer cannot forge the one that costs least),
// followed by a bit for each block that says which these are. So long
// holes cost nothing, and it is the same whether zeros are a hole or written.
type chunkHash struct {
	h    hash.Hash
	data [maxChunk / blockSize / 8]byte
	n    int
}

func newChunkHash() *chunkHash { return &chunkHash{h: blake3.New()} }

func (c *chunkHash) block(b []byte) {
	_, _ = c.h.Write(b)
	c.data[c.n/8] |= 1 << (c.n % 8)
	c.n++
}

func (c *chunkHash) zero() { c.n++ }

func (c *chunkHash) sum() (s sum) {
	_, _ = c.h.Write(c.data[:])
	c.h.Sum(s[:0])
	return s
}

// rootHash is the hash of a whole file from those of its chunks.
func rootHash(size int64, sums []sum) sum {
	h := blake3.New()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(size)))
	for i := range sums {
		_, _ = h.Write(sums[i][:])
	}
	var s sum
	h.Sum(s[:0])
	return s
}

var zeros [4096]byte

// isZero reports whether b is nothing but zeros.
func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
