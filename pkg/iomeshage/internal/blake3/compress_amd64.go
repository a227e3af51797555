package blake3

const hasCompress = true

// compress hashes 16 inputs at once, the i-th at in+i*stride, of so many blocks
// of 64 bytes each, and then writes their chaining values. counters are theirs; the
// flags of the first block have first too, those of the last last.
//
//go:noescape
func compress(out *[width][8]uint32, in *byte, stride, blocks uint64, counters *[width]uint32, flags, first, last uint32)
