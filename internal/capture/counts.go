package capture

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// stats returns how many packets passed the filter into the ring, and how many
// found no room there.
func (r *ring) stats() (received, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.countLocked()
		return r.counts.current()[0], r.counts.current()[1]
	}
	return r.received, r.dropped
}

// countLocked adds the kernel's counters, which reading sets to zero.
func (r *ring) countLocked() {
	_ = r.control("packet statistics", func(fd int) error {
		size := uint32(unsafe.Sizeof(unix.TpacketStatsV3{}))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
			uintptr(unsafe.Pointer(&r.counts.current()[2])), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return errno
		}
		r.addLocked()
		return nil
	})
}

// addLocked adds the kernel's last answer, which it wrote into the record: a
// process that is killed meanwhile loses none.
func (r *ring) addLocked() {
	now := r.counts.current()
	s := (*unix.TpacketStatsV3)(unsafe.Pointer(&now[2]))
	r.counts.store(record4{now[0] + uint64(s.Packets-s.Drops), now[1] + uint64(s.Drops)})
}
