package iomeshage

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
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

// chunkHash is the hash of a chunk: BLAKE3 (of the hashes that a lying peer
// cannot forge the one that costs least) over the hashes of its blocks. That of
// a block of zeros is all zero. So long holes cost nothing, and it is the same
// whether zeros are a hole or written.
type chunkHash struct{ blocks []byte }

func (c *chunkHash) block(b []byte) {
	v := blockHash(b)
	c.blocks = append(c.blocks, v[:]...)
}

func (c *chunkHash) zero() { c.blocks = append(c.blocks, make([]byte, len(sum{}))...) }

func (c *chunkHash) sum() sum { return blake3.Sum256(c.blocks) }

// lane is as much as the library hashes at once where the processor can.
const lane = guts.MaxSIMD * guts.ChunkSize

// blockHash is the BLAKE3 hash of a block. The library's Sum256 returns the
// same, but starts a goroutine for each lane, which costs half of the speed.
func blockHash(b []byte) sum {
	if len(b) != blockSize {
		return blake3.Sum256(b)
	}
	var nodes [blockSize / lane][8]uint32 // of the tree, one level after the other
	for i := range nodes {
		nodes[i] = guts.ChainingValue(guts.CompressBuffer((*[lane]byte)(b[i*lane:]), lane, &guts.IV, uint64(i)*guts.MaxSIMD, 0))
	}
	for n := len(nodes); n > 2; n /= 2 {
		for i := range n / 2 {
			nodes[i] = guts.ChainingValue(guts.ParentNode(nodes[2*i], nodes[2*i+1], &guts.IV, 0))
		}
	}
	v := guts.WordsToBytes(guts.CompressNode(guts.ParentNode(nodes[0], nodes[1], &guts.IV, guts.FlagRoot)))
	return sum(v[:len(sum{})])
}

// rootHash is the hash of a whole file from those of its chunks.
func rootHash(size int64, sums []sum) sum {
	all := binary.BigEndian.AppendUint64(nil, uint64(size))
	for i := range sums {
		all = append(all, sums[i][:]...)
	}
	return blake3.Sum256(all)
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
