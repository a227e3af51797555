package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

// in runs f with the test's thread in another namespace.
func in(t *testing.T, ns netns.NsHandle, f func()) {
	t.Helper()
	was, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer was.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(was); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// secondHost makes a namespace that is joined with this one by a wire: "wire"
// here has the address 192.0.2.1, "wire" there 192.0.2.2.
func secondHost(t *testing.T) netns.NsHandle {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := netns.New()
	if err == nil {
		err = netns.Set(here)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "wire"}, PeerName: "wire", PeerNamespace: netlink.NsFd(there)}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	address(t, "192.0.2.1/24")
	in(t, there, func() { address(t, "192.0.2.2/24") })
	return there
}

func address(t *testing.T, cidr string) {
	t.Helper()
	link, err := netlink.LinkByName("wire")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err == nil {
		err = netlink.AddrAdd(link, addr)
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// guest makes a guest on a datapath of the namespace the thread is in.
func guest(t *testing.T, d *Datapath, vlan int, cidr string) (*networktest.Guest, network.Port) {
	t.Helper()
	p, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Host, Bridge: "br_a", VLAN: vlan}})
	if err != nil {
		t.Fatal(err)
	}
	return networktest.NewGuest(t, p[0], cidr), p[0]
}

func TestVXLAN(t *testing.T) { testTunnel(t, "vxlan") }

func TestGRE(t *testing.T) { testTunnel(t, "gre") }

// testTunnel joins two hosts, of which one has guests already, and checks that
// guests of one VLAN reach each other, and others do not.
func testTunnel(t *testing.T, kind string) {
	networktest.Host(t)
	there := secondHost(t)
	a := newDatapath(t)
	defer closeClean(t, a)
	a1, _ := guest(t, a, 101, "10.5.0.1/24")

	name, err := a.Tunnel(t.Context(), "br_a", network.Tunnel{Kind: kind, Remote: netip.MustParseAddr("192.0.2.2"), Key: 0xfffff123})
	if errors.Is(err, errs.Unsupported) {
		if !strings.Contains(err.Error(), "modprobe") {
			t.Errorf("no remedy in: %v", err)
		}
		t.Skipf("this kernel has no %s: %v", kind, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b *Datapath
	var b1, b2 *networktest.Guest
	in(t, there, func() {
		b = newDatapath(t)
		if _, err := b.Tunnel(t.Context(), "br_a", network.Tunnel{Kind: kind, Remote: netip.MustParseAddr("192.0.2.1"), Key: 0xfffff123}); err != nil {
			t.Fatal(err)
		}
		b1, _ = guest(t, b, 101, "10.5.0.2/24")
		b2, _ = guest(t, b, 102, "10.5.0.3/24")
	})
	defer in(t, there, func() { closeClean(t, b) })
	a2, p2 := guest(t, a, 102, "10.5.0.4/24") // after the tunnel
	if !a1.Reaches(t, b1, time.Minute) || !b2.Reaches(t, a2, time.Minute) {
		t.Error("guests of one VLAN do not reach each other through the tunnel")
	}
	if a1.Reaches(t, b2, 200*time.Millisecond) {
		t.Error("guests of two VLANs reach each other through the tunnel")
	}
	if err := a.Delete(t.Context(), []network.Port{p2}); err != nil {
		t.Fatal(err)
	}
	if err := a.Untunnel(t.Context(), "br_a", name); err != nil {
		t.Fatal(err)
	}
	if a1.Reaches(t, b1, 200*time.Millisecond) {
		t.Error("the tunnel is still there")
	}
	if err := a.Untunnel(t.Context(), "br_a", name); !errors.Is(err, errs.NotFound) {
		t.Errorf("a tunnel removed twice: %v", err)
	}
}

// closeClean closes a datapath and checks that it leaves nothing.
func closeClean(t *testing.T, d *Datapath) {
	t.Helper()
	if err := d.Close(context.Background()); err != nil {
		t.Error(err)
	}
	list, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if name := l.Attrs().Name; strings.HasPrefix(name, d.tag) || strings.HasPrefix(name, network.AutoName) {
			t.Errorf("%s is left", name)
		}
	}
}

func TestTunnelTaken(t *testing.T) {
	networktest.Host(t)
	secondHost(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	to := network.Tunnel{Kind: "vxlan", Remote: netip.MustParseAddr("192.0.2.2"), Key: 5}
	guest(t, d, 101, "10.5.0.1/24")
	if _, err := d.Tunnel(t.Context(), "br_a", to); err != nil {
		t.Fatal(err)
	}
	before := networktest.Links(t)
	_, err := d.Tunnel(t.Context(), "br_a", to)
	if err == nil {
		t.Fatal("the same tunnel twice")
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("a failed tunnel left (-before +now):\n%s", diff)
	}
}

// TestTrunk sends between guests of two hosts over a wire, tagged.
func TestTrunk(t *testing.T) {
	networktest.Host(t)
	there := secondHost(t)
	a := newDatapath(t)
	defer closeClean(t, a)
	if err := a.Trunk(t.Context(), "br_a", "nope"); !errors.Is(err, errs.NotFound) {
		t.Errorf("trunk to nothing: %v", err)
	}
	err := a.Trunk(t.Context(), "br_a", "wire")
	if errors.Is(err, errs.Unsupported) {
		if !strings.Contains(err.Error(), "modprobe 8021q") {
			t.Errorf("no remedy in: %v", err)
		}
		t.Skipf("this kernel has no VLAN interfaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	guests := map[int][2]*networktest.Guest{}
	for i, vlan := range []int{0, 101, 4094, 4095} {
		g, _ := guest(t, a, vlan, "10.5.0."+strconv.Itoa(10+i)+"/24")
		guests[vlan] = [2]*networktest.Guest{g}
	}
	var b *Datapath
	in(t, there, func() {
		b = newDatapath(t)
		for i, vlan := range []int{0, 101, 4094, 4095} {
			g, _ := guest(t, b, vlan, "10.5.0."+strconv.Itoa(20+i)+"/24")
			guests[vlan] = [2]*networktest.Guest{guests[vlan][0], g}
		}
		if err := b.Trunk(t.Context(), "br_a", "wire"); err != nil {
			t.Fatal(err)
		}
	})
	defer in(t, there, func() { closeClean(t, b) })
	for vlan, g := range guests {
		within := time.Minute
		if vlan == noTag {
			within = 200 * time.Millisecond
		}
		if g[0].Reaches(t, g[1], within) != (vlan != noTag) {
			t.Errorf("VLAN %d over the trunk: want %t", vlan, vlan != noTag)
		}
	}
	if guests[101][0].Reaches(t, guests[4094][1], 200*time.Millisecond) {
		t.Error("VLANs are not apart on the trunk")
	}
	if err := a.Untrunk(t.Context(), "br_a", "wire"); err != nil {
		t.Fatal(err)
	}
	for _, vlan := range []int{0, 101} {
		if g := guests[vlan]; g[0].Reaches(t, g[1], 200*time.Millisecond) {
			t.Errorf("VLAN %d is still on the trunk", vlan)
		}
	}
}

func TestConfigure(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	guest(t, d, 1, "10.5.0.1/24")
	for _, c := range [][2]string{{"rstp_enable", "true"}, {"mcast_snooping_enable", "true"}, {agingSetting, "60"}} {
		if err := d.Configure(t.Context(), "br_a", c[0], c[1]); err != nil {
			t.Fatal(err)
		}
	}
	guest(t, d, 2, "10.5.0.2/24") // later segments are the same
	check := func(want map[string]string) {
		t.Helper()
		links, _ := d.Links("br_a")
		if len(links) != 2 {
			t.Fatalf("links: %v", links)
		}
		for _, l := range links {
			for file, value := range want {
				got := bridgeFile(t, l.Name, file)
				if got != value {
					t.Errorf("%s of VLAN %d is %s, want %s", file, l.VLAN, got, value)
				}
			}
		}
	}
	check(map[string]string{"stp_state": "1", "ageing_time": "6000", "multicast_snooping": "1"})
	if err := d.Configure(t.Context(), "br_a", "stp_enable", "false"); err != nil {
		t.Fatal(err)
	}
	check(map[string]string{"stp_state": "0"})
	for key, kind := range map[string]errs.Kind{"datapath_type": errs.Unsupported, "stp_enable": errs.Invalid, agingSetting: errs.Invalid} {
		if err := d.Configure(t.Context(), "br_a", key, "x"); !errors.Is(err, kind) {
			t.Errorf("%s=x: %v", key, err)
		}
	}
}

// bridgeFile reads a property from sysfs, which must be mounted anew to show
// the namespace of the thread.
func bridgeFile(t *testing.T, dev, file string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("sysfs", dir, "sysfs", unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	text, err := os.ReadFile(filepath.Join(dir, "class/net", dev, "bridge", file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func TestDHCP(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	p, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Host, Bridge: "br_a", VLAN: 1}, {Kind: network.Host, Bridge: "br_a", VLAN: 1}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := d.DHCP(ctx, p[1]); !errors.Is(err, errs.Unreachable) {
		t.Errorf("without a server: %v", err)
	}
	if err := d.AddIP(t.Context(), p[0], netip.MustParsePrefix("10.4.0.1/24")); err != nil {
		t.Fatal(err)
	}
	serve(t, p[0].Name)
	got, err := d.DHCP(t.Context(), p[1])
	if err != nil || got != netip.MustParsePrefix("10.4.0.77/24") {
		t.Fatalf("got %v %v", got, err)
	}
	link, err := netlink.LinkByName(p[1].Name)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.4.0.77/24" {
		t.Errorf("addresses: %v %v", addrs, err)
	}
}

// serve answers DHCP on a host tap.
func serve(t *testing.T, iface string) {
	t.Helper()
	server, err := server4.NewServer(iface, &net.UDPAddr{Port: 67}, func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(10, 4, 0, 77)),
			dhcpv4.WithServerIP(net.IPv4(10, 4, 0, 1)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(60),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 4, 0, 1))))
		if err == nil {
			_, err = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve() // ends with an error when it is closed
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}
