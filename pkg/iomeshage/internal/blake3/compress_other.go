//go:build !amd64

package blake3

const hasCompress = false

func compress(*[width][8]uint32, *byte, uint64, uint64, *[width]uint32, uint32, uint32, uint32) {
	panic("not for this processor")
}
