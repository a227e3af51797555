package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	snoopLen = 128 // bytes of a frame that are looked at
	// A guest may send as many ARPs as it likes; we look at this many in a
	// period and let the kernel drop the rest.
	snoopBudget = 2000
	snoopPeriod = 100 * time.Millisecond
)

// snooper learns the addresses of guests from what their NICs say about
// themselves: ARP (RFC 826) and neighbour discovery (RFC 4861). One packet
// socket sees all interfaces of the network namespace.
type snooper struct {
	file *os.File
	log  *slog.Logger
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex // guards the field below
	ports map[int]*snooped
}

type snooped struct {
	mac      [6]byte
	ip4, ip6 netip.Addr
}

func newSnooper(log *slog.Logger) (*snooper, error) {
	file, err := snoopSocket()
	if err != nil {
		return nil, fmt.Errorf("cannot open a socket to learn addresses: %w", err)
	}
	s := &snooper{file: file, log: log, stop: make(chan struct{}), done: make(chan struct{}), ports: map[int]*snooped{}}
	go s.run()
	return s, nil
}

// snoopSocket opens the socket unbound, so that nothing arrives before the
// filter is in place.
func snoopSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "packet socket")
	prog, err := bpf.Assemble(snoopFilter)
	if err == nil {
		filters := make([]unix.SockFilter, len(prog))
		for i, p := range prog {
			filters[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
		}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]})
	}
	if err == nil {
		// Frames to guests tell nothing; older kernels filter them in see.
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)})
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// snoopFilter passes ARP, and ICMPv6 neighbour solicitations and advertisements.
var snoopFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 6},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 20, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 4},
	bpf.LoadAbsolute{Off: 54, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndSolicit, SkipTrue: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndAdvert, SkipTrue: 1},
	bpf.RetConstant{Val: snoopLen},
	bpf.RetConstant{Val: 0},
}

func (s *snooper) close() error {
	close(s.stop)
	err := s.file.Close()
	<-s.done
	return err
}

// watch starts or changes what is learned on a device. A mac that is none means
// that nothing is.
func (s *snooper) watch(index int, mac string) {
	hw, err := net.ParseMAC(mac)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || len(hw) != 6 {
		delete(s.ports, index)
		return
	}
	if now := s.ports[index]; now == nil || now.mac != [6]byte(hw) {
		s.ports[index] = &snooped{mac: [6]byte(hw)}
	}
}

func (s *snooper) forget(index int) {
	s.mu.Lock()
	delete(s.ports, index)
	s.mu.Unlock()
}

func (s *snooper) addresses(index int) (ip4, ip6 string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[index]
	if p == nil {
		return "", ""
	}
	return text(p.ip4), text(p.ip6)
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (s *snooper) run() {
	defer close(s.done)
	raw, err := s.file.SyscallConn()
	if err != nil {
		s.log.Error("addresses are not learned", "err", err)
		return
	}
	buf := make([]byte, snoopLen)
	period := time.NewTicker(snoopPeriod)
	defer period.Stop()
	for left := snoopBudget; ; left-- {
		if left == 0 {
			select {
			case <-period.C:
				left = snoopBudget
			case <-s.stop:
				return
			}
		}
		select {
		case <-period.C:
			left = snoopBudget
		default:
		}
		if !s.receive(raw, buf) {
			return
		}
	}
}

// receive waits for a frame and learns from it; false means the end.
func (s *snooper) receive(raw syscallConn, buf []byte) bool {
	var n int
	var from unix.Sockaddr
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		n, from, failed = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err != nil { // closed
		return false
	}
	if failed != nil {
		return true // such as ENETDOWN of a device that went: nothing to learn
	}
	if sa, ok := from.(*unix.SockaddrLinklayer); ok && sa.Pkttype != unix.PACKET_OUTGOING {
		s.see(sa.Ifindex, buf[:n])
	}
	return true
}

type syscallConn interface {
	Read(func(fd uintptr) bool) error
}

// see learns from a frame that came in on a device.
func (s *snooper) see(index int, frame []byte) {
	mac, addr, ok := claim(frame)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[index]
	if p == nil || p.mac != mac {
		return
	}
	switch {
	case addr.Is4():
		p.ip4 = addr
	case !addr.IsLinkLocalUnicast() || !p.ip6.IsValid() || p.ip6.IsLinkLocalUnicast():
		p.ip6 = addr // a global address says more than the link-local one beside it
	}
}
