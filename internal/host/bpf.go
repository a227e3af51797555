package host

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LoadBPF loads a small program of our own into the kernel, see bpf(2), and
// returns its descriptor. progType is a BPF_PROG_TYPE; the instructions are
// those of struct bpf_insn.
func LoadBPF(progType uint32, insns []uint64) (fd int, err error) {
	license := &[...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	var pins runtime.Pinner // the kernel gets addresses that the collector cannot see
	defer pins.Unpin()
	pins.Pin(license)
	pins.Pin(&insns[0])
	attr := struct {
		progType, count uint32
		insns, license  uint64
		logLevel, size  uint32
		logBuf          uint64
		kernVersion     uint32
		flags           uint32
	}{
		progType: progType, count: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(license))),
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		switch errno {
		case 0:
			unix.CloseOnExec(int(n))
			return int(n), nil
		case unix.EAGAIN, unix.EINTR: // a signal came, as the runtime sends them to its threads
		default:
			return -1, errno
		}
	}
}
