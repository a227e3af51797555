//go:build amd64 || arm64

package stage

import (
	"debug/elf"
	"runtime"
	"unsafe"
)

// code returns where the interpreter begins and ends in our own program.
func code() (start, end unsafe.Pointer)

var elfMachine = map[string]uint16{"amd64": uint16(elf.EM_X86_64), "arm64": uint16(elf.EM_AARCH64)}[runtime.GOARCH]
