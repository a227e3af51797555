package linux

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

const attrTypeMask = 1<<14 - 1 // NLA_TYPE_MASK: without the flags

// attributes goes through netlink attributes (struct nlattr), up to the end or
// the first that is malformed.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			n := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if n < unix.SizeofRtAttr || n > len(b) || !yield(kind, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}
