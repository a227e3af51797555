// Package blake3 hashes blocks of 256 KiB by BLAKE3, 16 chunks at a time where
// the processor has AVX-512.
//
// The library that does it otherwise has the processor gather the words of the
// 16 chunks from memory one by one, which takes more time than the hash itself.
// Here they are loaded as they lie, and transposed in registers.
package blake3

//go:generate go run gen.go

import (
	"unsafe"

	"golang.org/x/sys/cpu"
	"lukechampine.com/blake3"
	"lukechampine.com/blake3/guts"
)

// BlockSize is the size of a block in bytes.
const BlockSize = 256 << 10

const (
	width  = guts.MaxSIMD
	chunks = BlockSize / guts.ChunkSize
)

// Block returns what blake3.Sum256 does.
func Block(b *[BlockSize]byte) [32]byte {
	if !fast {
		return library(b)
	}
	var nodes [chunks][8]uint32
	var counters [width]uint32
	for at := 0; at < chunks; at += width {
		for i := range counters {
			counters[i] = uint32(at + i)
		}
		compress((*[width][8]uint32)(nodes[at:]), &b[at*guts.ChunkSize], guts.ChunkSize, guts.ChunkSize/guts.BlockSize,
			&counters, 0, guts.FlagChunkStart, guts.FlagChunkEnd)
	}
	return root(&nodes)
}

// root is the hash from the chaining values of the chunks. Two neighbours are
// the block of their parent, as they lie, and parents take their place.
func root(nodes *[chunks][8]uint32) [32]byte {
	var none [width]uint32
	for n := chunks; n > 2; n /= 2 {
		for at := 0; at < n/2; at += width {
			compress((*[width][8]uint32)(nodes[at:]), (*byte)(unsafe.Pointer(&nodes[2*at])), guts.BlockSize, 1, &none, guts.FlagParent, 0, 0)
		}
	}
	out := guts.WordsToBytes(guts.CompressNode(guts.ParentNode(nodes[0], nodes[1], &guts.IV, guts.FlagRoot)))
	return [32]byte(out[:32])
}

var fast = hasCompress && cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL

// lane is as much as the library hashes at once where the processor can.
const lane = guts.MaxSIMD * guts.ChunkSize

// library is Block by the library. Its Sum256 starts a goroutine for each lane,
// which costs half of the speed.
func library(b *[BlockSize]byte) [32]byte {
	var nodes [BlockSize / lane][8]uint32 // of the tree, one level after the other
	for i := range nodes {
		nodes[i] = guts.ChainingValue(guts.CompressBuffer((*[lane]byte)(b[i*lane:]), lane, &guts.IV, uint64(i)*guts.MaxSIMD, 0))
	}
	for n := len(nodes); n > 2; n /= 2 {
		for i := range n / 2 {
			nodes[i] = guts.ChainingValue(guts.ParentNode(nodes[2*i], nodes[2*i+1], &guts.IV, 0))
		}
	}
	v := guts.WordsToBytes(guts.CompressNode(guts.ParentNode(nodes[0], nodes[1], &guts.IV, guts.FlagRoot)))
	return [32]byte(v[:32])
}

// Sum is the BLAKE3 hash of b, of whatever length.
func Sum(b []byte) [32]byte {
	if len(b) == BlockSize {
		return Block((*[BlockSize]byte)(b))
	}
	return blake3.Sum256(b)
}
