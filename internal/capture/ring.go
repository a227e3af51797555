package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The ring is kernel memory, taken when a capture starts. 16 MiB let the reader
// be away for some 16 ms at a gigabyte per second, and for two seconds on an
// ordinary link; tcpdump has 2 MiB. That is what the first eight captures get;
// later ones share as if ringMemory were divided among all, down to 2 MiB each.
// What the disk cannot take at once waits in the sink, so that an idle capture
// costs no more than its ring. A block goes to the reader when it is full or
// retireAfter its first packet.
const (
	blockSize   = 256 << 10
	maxBlocks   = 64
	minBlocks   = 8
	ringMemory  = 128 << 20
	frameSize   = 2048
	retireAfter = 64 * time.Millisecond
	downSettles = time.Second // packets later than this are of an interface that is up again
	countsEvery = 1024        // blocks: the kernel counts with 32 bits
)

// ringBlocks is the size of the ring of a capture beside others.
func ringBlocks(others int) int {
	return min(maxBlocks, max(minBlocks, ringMemory/blockSize/(others+1)))
}

// Offsets in struct tpacket_block_desc, tpacket3_hdr and the sockaddr_ll
// behind it (linux/if_packet.h).
const (
	blockStatus, blockPackets, blockFirst, blockNumber        = 8, 12, 16, 24
	pktNext, pktSec, pktNsec, pktKept, pktLen                 = 0, 4, 8, 12, 16
	pktStatus, pktMac, pktTCI, pktTPID, pktHeader             = 20, 24, 32, 36, 48
	pktIndex                                                  = pktHeader + 4
	statusUser                                         uint32 = 1
	statusTagged, statusTPID                                  = 1 << 4, 1 << 6
	tpidDefault                                               = 0x8100
)

var (
	errGone = errors.New("the interface disappeared")
	native  = binary.NativeEndian
)

// ring is a packet socket with a TPACKET_V3 receive ring (the kernel's
// Documentation/networking/packet_mmap.rst). Its reader is one goroutine.
type ring struct {
	file   *os.File
	conn   syscall.RawConn
	mem    []byte
	blocks int    // in mem
	read   uint64 // blocks given back so far; the kernel numbers them from 1
	woken  chan struct{}
	bound  int     // interface index, 0 for all
	note   *uint64 // the same for a later process
	// downAt is when the interface was set down, else zero: it may come back, or
	// be gone without a further word.
	downAt time.Time

	mu       sync.Mutex // guards the fields below
	counts   cell       // while the ring is open
	received uint64     // then
	dropped  uint64
	closed   bool
}

// packet is a frame in the ring.
type packet struct {
	index     int // of the interface
	sec, nsec uint32
	length    int
	data      []byte
	tagged    bool // the kernel took this tag out of the frame
	tpid, tci uint16
}

// openRing makes a socket that gets nothing yet: set the filter, then bind. It
// counts in m, and notes there what a later process needs to know.
func openRing(blocks int, m *memory) (*ring, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("packet socket", err)
	}
	if err := setRing(fd, blocks); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	*m.word(wordBlocks) = uint64(blocks)
	return newRing(os.NewFile(uintptr(fd), "packet socket"), m)
}

// adoptRing goes on with the ring of an earlier process, whose memory is m.
func adoptRing(socket *os.File, m *memory) (*ring, error) {
	r, err := newRing(socket, m)
	if err != nil {
		return nil, err
	}
	r.bound, r.read = int(*m.word(wordBound)), m.reader.current()[0]
	if r.read > 0 { // the process may have been killed before it gave the last one back
		last := int((r.read-1)%uint64(r.blocks)) * blockSize
		number := (*uint64)(unsafe.Pointer(&r.mem[last+blockNumber]))
		if atomic.LoadUint32(r.word(last+blockStatus))&statusUser != 0 && atomic.LoadUint64(number) == r.read {
			r.free(last)
		}
	}
	return r, nil
}

// newRing maps the ring of a socket. On an error the socket is closed.
func newRing(socket *os.File, m *memory) (*ring, error) {
	r := &ring{file: socket, blocks: int(*m.word(wordBlocks)), counts: m.counts, note: m.word(wordBound), woken: make(chan struct{}, 1)}
	conn, err := socket.SyscallConn()
	if err == nil {
		r.conn = conn
		err = r.control("map packet ring", func(fd int) (err error) {
			r.mem, err = unix.Mmap(fd, 0, blockSize*r.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		})
	}
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	r.addLocked() // what the kernel told when the process before was killed
	return r, nil
}

func setRing(fd, blocks int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return os.NewSyscallError("packet ring version 3", err)
	}
	req := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: uint32(blocks),
		Frame_size: frameSize, Frame_nr: blockSize / frameSize * uint32(blocks),
		Retire_blk_tov: uint32(retireAfter / time.Millisecond),
	}
	err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req)
	return os.NewSyscallError(fmt.Sprintf("packet ring of %d KiB", blocks*blockSize>>10), err)
}

// control runs f on the socket.
func (r *ring) control(what string, f func(fd int) error) error {
	var inner error
	err := r.conn.Control(func(fd uintptr) { inner = f(int(fd)) })
	if err == nil {
		err = inner
	}
	return os.NewSyscallError(what, err)
}

// filter sets the program that selects packets, in one step if there was one before.
func (r *ring) filter(prog []bpf.RawInstruction) error {
	f := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		f[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	return r.control("attach filter", func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]})
	})
}

// bind starts the flow from the interface with this index, or all for 0.
func (r *ring) bind(index int) error {
	r.bound = index
	*r.note = uint64(index)
	var all [2]byte
	binary.BigEndian.PutUint16(all[:], unix.ETH_P_ALL)
	return r.control("bind packet socket", func(fd int) error {
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: native.Uint16(all[:]), Ifindex: index})
	})
}

// promiscuous makes the interface pass on frames for others, or no longer.
func (r *ring) promiscuous(index int, on bool) error {
	opt := unix.PACKET_ADD_MEMBERSHIP
	if !on {
		opt = unix.PACKET_DROP_MEMBERSHIP
	}
	return r.control("promiscuous mode", func(fd int) error {
		return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, opt, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
	})
}

func (r *ring) word(offset int) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[offset])) }

// next is where the block begins that comes next.
func (r *ring) next() int { return int(r.read%uint64(r.blocks)) * blockSize }

// ready reports whether a block waits for the reader.
func (r *ring) ready() bool {
	return atomic.LoadUint32(r.word(r.next()+blockStatus))&statusUser != 0
}

// pending reports whether the kernel is filling a block.
func (r *ring) pending() bool {
	return atomic.LoadUint32(r.word(r.next()+blockPackets)) != 0
}

// wait returns when a block is ready, when the interface has been set down, at
// the time set by wakeAt (os.ErrDeadlineExceeded), or with errGone once the
// interface has been deleted. While it is down, that shows only on a new call.
func (r *ring) wait() error {
	gone, known := false, r.down()
	err := r.conn.Read(func(fd uintptr) bool {
		if r.ready() {
			return true
		}
		gone = r.lost(int(fd))
		return gone || r.down() && !known
	})
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		if gone {
			return errGone
		}
		return err
	}
	return r.waitDown()
}

// waitDown is wait after the poller has seen nothing but an error of the
// socket: until it sees a packet it refuses to wait. So a timer does.
func (r *ring) waitDown() error {
	r.setDown()
	gone := false
	if err := r.control("packet socket", func(fd int) error { gone = r.lost(fd); return nil }); err != nil {
		return err
	}
	if gone {
		return errGone
	}
	t := time.NewTimer(lingers)
	defer t.Stop()
	select {
	case <-r.woken:
	case <-t.C:
	}
	return nil
}

// lost reports whether the interface has been deleted, and notes when it is down.
func (r *ring) lost(fd int) bool {
	if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
		r.setDown()
	}
	return r.down() && r.unbound(fd)
}

func (r *ring) down() bool { return !r.downAt.IsZero() }

func (r *ring) setDown() {
	if !r.down() {
		r.downAt = time.Now()
	}
}

// unbound reports whether the kernel took the interface from the socket.
func (r *ring) unbound(fd int) bool {
	a, err := unix.Getsockname(fd)
	ll, ok := a.(*unix.SockaddrLinklayer)
	return r.bound != 0 && err == nil && ok && ll.Ifindex != r.bound
}

// look finds out, after a time in which nobody watched, whether the interface is
// there and up.
func (r *ring) look(ifname string) {
	if flags, err := linkFlags(ifname); err != nil || flags&unix.IFF_UP == 0 {
		r.setDown()
	}
	_ = r.control("packet socket", func(fd int) error {
		if r.unbound(fd) {
			r.setDown()
		}
		return nil
	})
}

// wake makes wait return, now or when it is called next.
func (r *ring) wake() {
	r.wakeAt(time.Unix(1, 0))
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// wakeAt sets the time at which wait returns at the latest; zero for never.
func (r *ring) wakeAt(t time.Time) { _ = r.file.SetReadDeadline(t) }

// release gives the next block back to the kernel.
func (r *ring) release() {
	r.free(r.next())
	r.read++
	if time.Since(r.downAt) > downSettles {
		r.downAt = time.Time{}
	}
	if r.read%countsEvery == 0 {
		r.stats()
	}
}

func (r *ring) free(block int) {
	atomic.StoreUint32(r.word(block+blockPackets), 0)
	atomic.StoreUint32(r.word(block+blockStatus), 0)
}

// walk calls f for every packet of the next block, which is ready. The packet
// is valid during the call.
func (r *ring) walk(f func(*packet)) {
	block := r.mem[r.next() : r.next()+blockSize]
	at := int(native.Uint32(block[blockFirst:]))
	var p packet
	for range native.Uint32(block[blockPackets:]) {
		h := block[at:]
		mac := int(native.Uint16(h[pktMac:]))
		p.data = h[mac : mac+int(native.Uint32(h[pktKept:]))]
		p.sec, p.nsec = native.Uint32(h[pktSec:]), native.Uint32(h[pktNsec:])
		p.length = int(native.Uint32(h[pktLen:]))
		p.index = int(int32(native.Uint32(h[pktIndex:])))
		status := native.Uint32(h[pktStatus:])
		if p.tagged = status&statusTagged != 0; p.tagged {
			p.tci, p.tpid = uint16(native.Uint32(h[pktTCI:])), tpidDefault
			if status&statusTPID != 0 {
				p.tpid = native.Uint16(h[pktTPID:])
			}
		}
		f(&p)
		at += int(native.Uint32(h[pktNext:]))
	}
}

// close frees socket and ring. The reader must have ended; counters stay.
func (r *ring) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.countLocked()
	r.received, r.dropped = r.counts.current()[0], r.counts.current()[1]
	r.closed = true
	return errors.Join(unix.Munmap(r.mem), r.file.Close())
}
