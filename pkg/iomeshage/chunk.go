package iomeshage

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"

	"minimega/pkg/iomeshage/internal/blake3"
)

const (
	// blockSize is what is read, hashed and sent in one go: it stays in a
	// core's second level cache meanwhile.
	blockSize = blake3.BlockSize
	minChunk  = blockSize
	midChunk  = 4 << 20
	maxChunk  = 16 << 20
	// maxSize bounds a file, so that its hashes are at most 32 MiB.
	maxSize = 16 << 40
	// With fewChunks, hosts that fetch at the same time share well; from
	// manyChunks on, larger ones are taken.
	fewChunks  = 64
	manyChunks = 1024
)

// chunkSize is how a file of size bytes is cut; all hosts agree on it.
func chunkSize(size int64) int64 {
	c := int64(minChunk)
	for c < midChunk && size > c*fewChunks || c < maxChunk && size > c*manyChunks {
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

// chunkHash is the hash of a chunk: BLAKE3 (of the hashes that a lying peer
// cannot forge the one that costs least) over the hashes of its blocks. That of
// a block of zeros is all zero. So long holes cost nothing, and it is the same
// whether zeros are a hole or written.
type chunkHash struct{ blocks []byte }

func (c *chunkHash) block(b []byte) {
	v := blake3.Sum(b)
	c.blocks = append(c.blocks, v[:]...)
}

func (c *chunkHash) zero() { c.blocks = append(c.blocks, make([]byte, len(sum{}))...) }

func (c *chunkHash) sum() sum { return blake3.Sum(c.blocks) }

// rootHash is the hash of a whole file from those of its chunks.
func rootHash(size int64, sums []sum) sum {
	all := binary.BigEndian.AppendUint64(nil, uint64(size))
	for i := range sums {
		all = append(all, sums[i][:]...)
	}
	return blake3.Sum(all)
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
