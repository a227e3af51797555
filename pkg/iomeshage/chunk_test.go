package iomeshage

import "testing"

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
