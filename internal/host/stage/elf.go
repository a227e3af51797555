package stage

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
)

// image lays out an ELF file (System V ABI, chapter 4) of two segments, the
// headers and code, and the data, and one that is only in memory.
func image(machine uint16, code, data []byte, room int) ([]byte, error) {
	const headers = 64 + 4*56
	if headers+len(code) > dataOff {
		return nil, errors.New("the code of the interpreter is too long")
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: machine, Version: uint32(elf.EV_CURRENT), Entry: codeAddr + headers,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 4, Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	load := func(flags elf.ProgFlag, off, addr, size int) elf.Prog64 {
		return elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(flags), Off: uint64(off), Vaddr: uint64(addr), Paddr: uint64(addr),
			Filesz: uint64(size), Memsz: uint64(size), Align: pageSize}
	}
	memory := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Vaddr: RoomAddr, Paddr: RoomAddr, Memsz: uint64(room), Align: pageSize}
	if room == 0 {
		memory.Type = uint32(elf.PT_NULL)
	}
	b := bytes.NewBuffer(make([]byte, 0, dataOff+len(data)))
	// Writing to a bytes.Buffer does not fail.
	_ = binary.Write(b, binary.LittleEndian, h)
	_ = binary.Write(b, binary.LittleEndian, []elf.Prog64{
		load(elf.PF_R|elf.PF_X, 0, codeAddr, headers+len(code)),
		load(elf.PF_R|elf.PF_W, dataOff, dataAddr, len(data)),
		memory,
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W)},
	})
	b.Write(code)
	b.Write(make([]byte, dataOff-b.Len()))
	b.Write(data)
	return b.Bytes(), nil
}
