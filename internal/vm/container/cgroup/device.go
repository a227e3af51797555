package cgroup

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"minimega/internal/host"
)

// device is a class of devices that a container may use. Numbers are those of
// the kernel's Documentation/admin-guide/devices.txt, -1 is any.
type device struct {
	kind         byte // c or b
	major, minor int
	access       string // of read, write, mknod
}

// allowed are the devices of every container: those that are in its /dev, its
// terminals, and all to be made (mknod), not to be used.
var allowed = []device{
	{'c', -1, -1, "m"}, {'b', -1, -1, "m"},
	{'c', 1, 3, "rwm"}, {'c', 1, 5, "rwm"}, {'c', 1, 7, "rwm"}, {'c', 1, 8, "rwm"}, {'c', 1, 9, "rwm"},
	{'c', 5, 0, "rwm"}, {'c', 5, 2, "rwm"}, {'c', 136, -1, "rwm"},
}

// String is the form of devices.allow.
func (d device) String() string {
	return fmt.Sprintf("%c %s:%s %s", d.kind, number(d.major), number(d.minor), d.access)
}

func number(n int) string {
	if n < 0 {
		return "*"
	}
	return fmt.Sprint(n)
}

// See linux/bpf.h: the context of BPF_PROG_TYPE_CGROUP_DEVICE is access<<16 |
// kind, major, minor.
const (
	bpfProgAttach   = 8
	bpfCgroupDevice = 15 // program type
	bpfAttachDevice = 6
	devBlock        = 1
	devChar         = 2
	accMknod        = 1
	accRead         = 2
	accWrite        = 4
)

func accessBits(s string) (bits uint32) {
	for _, c := range s {
		switch c {
		case 'm':
			bits |= accMknod
		case 'r':
			bits |= accRead
		case 'w':
			bits |= accWrite
		}
	}
	return bits
}

// insn encodes an eBPF instruction.
func insn(op, dst, src uint8, off int16, imm int32) uint64 {
	return uint64(op) | uint64(dst&15|src<<4)<<8 | uint64(uint16(off))<<16 | uint64(uint32(imm))<<32
}

// deviceProgram returns 1 for what is allowed, else 0.
func deviceProgram(list []device) []uint64 {
	const (
		ldxW   = 0x61 // dst = *(u32 *)(src + off)
		movReg = 0xbf
		movImm = 0xb7
		andImm = 0x57
		rshImm = 0x77
		jneImm = 0x55
		exit   = 0x95
	)
	p := []uint64{
		insn(ldxW, 2, 1, 0, 0), insn(movReg, 3, 2, 0, 0),
		insn(andImm, 2, 0, 0, 0xffff), insn(rshImm, 3, 0, 0, 16), // r2 kind, r3 access
		insn(ldxW, 4, 1, 4, 0), insn(ldxW, 5, 1, 8, 0), // r4 major, r5 minor
	}
	for _, d := range list {
		kind := int32(devChar)
		if d.kind == 'b' {
			kind = devBlock
		}
		test := []uint64{insn(movReg, 6, 3, 0, 0), insn(andImm, 6, 0, 0, int32(^accessBits(d.access)&7))}
		type condition struct {
			reg   uint8
			value int32
		}
		conditions := []condition{{6, 0}, {2, kind}}
		if d.major >= 0 {
			conditions = append(conditions, condition{4, int32(d.major)})
		}
		if d.minor >= 0 {
			conditions = append(conditions, condition{5, int32(d.minor)})
		}
		for i, c := range conditions {
			skip := len(conditions) - i - 1 + 2 // the conditions that follow, and the two that allow
			test = append(test, insn(jneImm, c.reg, 0, int16(skip), c.value))
		}
		p = append(append(p, test...), insn(movImm, 0, 0, 0, 1), insn(exit, 0, 0, 0, 0))
	}
	return append(p, insn(movImm, 0, 0, 0, 0), insn(exit, 0, 0, 0, 0))
}

// restrictUnified puts the list of devices on a directory and all below.
func restrictUnified(dir string) error {
	prog, err := loadDeviceProgram()
	if err != nil {
		return fmt.Errorf("load the program that guards devices: %w", err)
	}
	defer unix.Close(prog)
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	attr := struct{ target, prog, kind, flags uint32 }{uint32(f.Fd()), uint32(prog), bpfAttachDevice, 0} // in the place of an earlier daemon's
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgAttach, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return fmt.Errorf("guard the devices of %s: %w", dir, errno)
	}
	return nil
}

func loadDeviceProgram() (int, error) { return host.LoadBPF(bpfCgroupDevice, deviceProgram(allowed)) }
