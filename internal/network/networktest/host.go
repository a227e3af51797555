package networktest

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"minimega/internal/network"
)

// hostStaysOut checks that the host neither answers nor hears a guest on a VLAN
// where it has no port, whatever tricks the guest knows.
func hostStaysOut(t *testing.T, b *bench) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.IP(hostAddr[:]), Mask: net.CIDRMask(32, 32)}}); err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IP(hostAddr[:]), Port: probePort})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	p := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 101})[0]
	tap := OpenTap(t, p.Name)
	for _, stp := range []string{"false", "true"} { // with it, frames for bridges are this one's
		if c, ok := b.dp.(network.Configurer); ok {
			if err := c.Configure(t.Context(), "br_a", "stp_enable", stp); err != nil {
				t.Fatal(err)
			}
		}
		for _, to := range groups() {
			SendFrame(t, tap, arpForHost(to))
		}
		if ReceiveFrame(t, tap, guestMAC[:], no) {
			t.Errorf("STP %s: the host answered a guest's ARP", stp)
		}
		for _, to := range groups() {
			SendFrame(t, tap, packetToHost(to))
		}
		if err := socket.SetReadDeadline(time.Now().Add(no)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := socket.ReadFrom(make([]byte, 100)); err == nil {
			t.Errorf("STP %s: the host heard a guest's packet", stp)
		}
	}
}

// hostIsSilent checks that the host sends nothing on its own to a guest.
func hostIsSilent(t *testing.T, b *bench) {
	p := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 101}, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 101})
	tap := OpenTap(t, p[0].Name)
	OpenTap(t, p[1].Name)
	if ReceiveFrame(t, tap, nil, 2*time.Second) {
		t.Error("a frame came that no guest sent")
	}
}

// unplugged checks that a port on no VLAN leads nowhere, and not to the host.
func unplugged(t *testing.T, b *bench) {
	p := b.create(t, network.PortSpec{Kind: network.Tap, VLAN: network.Disconnected}, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 1})
	b.move(t, p[1], "", network.Disconnected)
	for _, p := range p {
		OpenTap(t, p.Name)
		link, err := netlink.LinkByName(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		if link.Attrs().Flags&net.FlagUp != 0 {
			t.Errorf("%s is up, so that the host would listen to the guest", p.Name)
		}
	}
}

// mirror checks that a third port sees what two others say to each other, and
// only while the mirror is on.
func mirror(t *testing.T, b *bench) {
	m, ok := b.dp.(network.Mirrorer)
	if !ok {
		t.Skip("this datapath has no mirrors")
	}
	g, gp := b.guest(t, "br_a", 101)
	h, _ := b.guest(t, "br_a", 101)
	p := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_b", VLAN: 7})[0]
	tap := OpenTap(t, p.Name)
	hw := func(s string) []byte {
		mac, err := net.ParseMAC(s)
		if err != nil {
			t.Fatal(err)
		}
		return mac
	}
	if err := m.Mirror(t.Context(), gp, p); err != nil {
		t.Fatal(err)
	}
	shows := func(from, to *Guest) bool {
		for end := time.Now().Add(yes); time.Now().Before(end); {
			expect(t, from, to, true)
			if ReceiveFrame(t, tap, append(hw(to.MAC), hw(from.MAC)...), 50*time.Millisecond) {
				return true // a tap that has just got its carrier takes nothing for a moment
			}
		}
		return false
	}
	if !shows(g, h) || !shows(h, g) {
		t.Error("a mirror does not show both directions")
	}
	if err := m.Unmirror(t.Context(), gp, p); err != nil {
		t.Fatal(err)
	}
	for ReceiveFrame(t, tap, nil, 20*time.Millisecond) { // what came before
		continue
	}
	expect(t, g, h, true)
	if ReceiveFrame(t, tap, nil, no) {
		t.Error("the mirror is still on")
	}
	if err := m.Unmirror(t.Context(), gp, p); err != nil {
		t.Errorf("a mirror ended twice: %v", err)
	}
}
