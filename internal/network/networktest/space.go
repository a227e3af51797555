// Package networktest holds the checks that every network.Datapath must pass,
// and what they need: network namespaces that stand for the host and for guests.
package networktest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/host/hosttest"
	"minimega/internal/network"
)

// Host puts the test's goroutine in a network namespace of its own until the
// test ends, and skips the test if the user may not have one. What the test
// leaves there fails it.
func Host(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	runtime.LockOSThread()
	was, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(netns.Set(was), was.Close(), ns.Close())
		if err != nil {
			t.Error(err) // and the thread stays locked, to end with the goroutine
			return
		}
		runtime.UnlockOSThread()
	})
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Alone: true}.Check(t)
}

// Links returns the names of all interfaces of the host, sorted.
func Links(t testing.TB) []string {
	t.Helper()
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		names = append(names, l.Attrs().Name)
	}
	slices.Sort(names)
	return names
}

// Guest is a network namespace with one interface, and a socket in it.
type Guest struct {
	Addr   netip.Addr
	MAC    string
	Handle *netlink.Handle
	Link   netlink.Link
	conn   *net.UDPConn
}

// probePort is where guests listen.
const probePort = 7

// NewGuest moves the outer end of a Host port into a namespace of its own and
// gives it an address such as 10.0.0.1/24.
func NewGuest(t testing.TB, p network.Port, cidr string) *Guest {
	t.Helper()
	link, err := netlink.LinkByName(p.Name)
	if err != nil {
		t.Fatal(err)
	}
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ns, err := netns.New() // of this thread, which Host has locked
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetNsFd(link, int(ns)); err != nil {
		t.Fatal(err)
	}
	g := &Guest{Addr: netip.MustParsePrefix(cidr).Addr(), MAC: link.Attrs().HardwareAddr.String()}
	if g.Handle, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Handle.Close)
	g.configure(t, p.Name, cidr)
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	g.conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: g.Addr.AsSlice(), Port: probePort})
	if back := netns.Set(host); back != nil {
		t.Fatal(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.conn.Close() })
	return g
}

func (g *Guest) configure(t testing.TB, name, cidr string) {
	t.Helper()
	link, err := g.Handle.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	g.Link = link
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if g.Addr.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := g.Handle.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if err := g.Handle.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
}

// Reaches sends to another guest until something arrives there, at most for
// the given time.
func (g *Guest) Reaches(t testing.TB, other *Guest, within time.Duration) bool {
	t.Helper()
	word := []byte(g.Addr.String() + time.Now().String())
	to := &net.UDPAddr{IP: other.Addr.AsSlice(), Port: probePort}
	buf := make([]byte, 256)
	for end := time.Now().Add(within); time.Now().Before(end); {
		if _, err := g.conn.WriteTo(word, to); err != nil && !noRoute(err) {
			t.Fatal(err)
		}
		if err := other.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := other.conn.ReadFrom(buf)
		if err == nil && string(buf[:n]) == string(word) {
			return true
		}
	}
	return false
}

// noRoute tells errors of a guest that got no answer to its ARP from others.
func noRoute(err error) bool {
	return errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
}

// OpenTap opens a tap as a hypervisor does. What is read are the frames to the
// guest, each behind a virtio_net_hdr of VnetHdr bytes.
func OpenTap(t testing.TB, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		t.Fatalf("cannot open tap %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// VnetHdr is the length of the header before each frame of a tap.
const VnetHdr = 10

// SendFrame sends a frame from the guest behind a tap.
func SendFrame(t testing.TB, tap *os.File, frame []byte) {
	t.Helper()
	if _, err := tap.Write(append(make([]byte, VnetHdr), frame...)); err != nil {
		t.Fatal(err)
	}
}

// ReceiveFrame waits for a frame to the guest that starts with prefix.
func ReceiveFrame(t testing.TB, tap *os.File, prefix []byte, within time.Duration) bool {
	t.Helper()
	if err := tap.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := tap.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if n >= VnetHdr+len(prefix) && string(buf[VnetHdr:VnetHdr+len(prefix)]) == string(prefix) {
			return true
		}
	}
}

// Watch opens a packet socket on an interface, in promiscuous mode.
func Watch(t testing.TB, name string) *os.File {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	proto := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	index := link.Attrs().Index
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index})
	if err == nil {
		err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// SeesFrame waits for a frame that starts with prefix on a socket of Watch.
func SeesFrame(t testing.TB, watch *os.File, prefix []byte, within time.Duration) bool {
	t.Helper()
	if err := watch.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := watch.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(buf[:n], prefix) {
			return true
		}
	}
}

// Here makes a Guest of the host itself, at one of its addresses: only its socket.
func Here(t testing.TB, addr string) *Guest {
	t.Helper()
	g := &Guest{Addr: netip.MustParseAddr(addr)}
	var err error
	if g.conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: g.Addr.AsSlice(), Port: probePort}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.conn.Close() })
	return g
}

// Solicit sends to an address on the link, so that the guest looks for it.
func (g *Guest) Solicit(t testing.TB, addr string) {
	t.Helper()
	_, err := g.conn.WriteTo([]byte("hello"), &net.UDPAddr{IP: netip.MustParseAddr(addr).AsSlice(), Port: probePort})
	if err != nil && !noRoute(err) {
		t.Fatal(err)
	}
}
