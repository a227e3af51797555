package iomeshage

import (
	"testing"

	"lukechampine.com/blake3"
)

// A block's hash is BLAKE3, whatever its length.
func TestBlockHash(t *testing.T) {
	b := random(16, blockSize)
	for _, n := range []int{1, 1 << 10, blockSize - 1, blockSize} {
		if blockHash(b[:n]) != blake3.Sum256(b[:n]) {
			t.Errorf("of %d bytes it is another", n)
		}
	}
}

// The hash of a chunk tells which blocks are zero, and not how they came.
func TestChunkHash(t *testing.T) {
	b := random(17, blockSize)
	var x, y, z chunkHash
	x.block(b)
	x.zero()
	y.zero()
	y.block(b)
	z.block(b)
	if x.sum() == y.sum() || x.sum() == z.sum() {
		t.Error("zeros do not count")
	}
}
