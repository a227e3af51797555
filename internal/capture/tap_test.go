package capture

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// tap makes a tap as QEMU has it: the guest's side is the file, and the tap
// goes when that is closed.
func tap(t *testing.T, name string) *os.File {
	t.Helper()
	needRoot(t)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { _ = f.Close() })
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	up(t, name)
	return f
}

// A guest's tap under full load: all its frames are in the file or counted,
// both directions, and the end of the guest is the end of the capture.
func TestTapOfAGuest(t *testing.T) {
	const n = 50000
	m := newManager(t)
	guest := tap(t, "captap0")
	path := file(t, "guest.pcapng")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), "captap0"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := guest.Write(udpFrame(7, i, 600)); err != nil {
			t.Fatal(err)
		}
	}
	sender(t, "captap0")(udpFrame(8, 0, 600)) // to the guest
	eventually(t, "all packets", func() bool { i := m.List()[0]; return i.Packets+i.Drops == n+1 })
	drops := m.List()[0].Drops
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "capture off the list", func() bool { return len(m.List()) == 0 })
	packets, ifaces := count(t, path)
	if packets+drops != n+1 || ifaces[0].Stats == nil || ifaces[0].Stats.Received != n+1 {
		t.Errorf("%d packets in the file, %d dropped, statistics %+v", packets, drops, ifaces[0].Stats)
	}
	t.Logf("%d sent, %d captured, %d dropped", n+1, packets, drops)
}
