package network_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"minimega/internal/errs"
	"minimega/internal/host/lab"
	"minimega/internal/network"
)

// overlaid joins the sites for a namespace.
func overlaid(t *testing.T, namespace string, sites ...*site) {
	t.Helper()
	var all []netip.Addr
	for _, s := range sites {
		all = append(all, s.IP)
	}
	for _, s := range sites {
		err := s.m.SetOverlay(t.Context(), network.Overlay{Local: s.IP, ClusterID: 0xabc})
		err = errors.Join(err, s.m.SetPeers(t.Context(), namespace, all)) // its own is among them
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOverlay: of three hosts, what is on one VLAN of one namespace reaches each
// other, and nothing else does.
func TestOverlay(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 3})
	a1 := s[0].station(t, "lab", 101, "10.9.0.1/24") // before the overlay
	overlaid(t, "lab", s...)
	b1 := s[1].station(t, "lab", 101, "10.9.0.2/24")
	c1 := s[2].station(t, "lab", 101, "10.9.0.3/24")
	for _, p := range [][2]*station{{a1, b1}, {b1, c1}, {c1, a1}} {
		p[0].reaches(t, p[1])
	}
	other := s[1].station(t, "lab", 102, "10.9.0.4/24")
	foreign := s[1].station(t, "foreign", 103, "10.9.0.5/24")
	alien := s[2].station(t, "foreign", 103, "10.9.0.6/24")
	a2 := s[0].station(t, "lab", 102, "10.9.0.7/24")
	a2.reaches(t, other)
	a1.misses(t, other)
	foreign.misses(t, alien) // nobody joined its namespace
	elsewhere := s[1].stationOn(t, network.PortSpec{Bridge: "br_b", Namespace: "lab", VLAN: 101}, "10.9.0.8/24")
	twin := s[2].stationOn(t, network.PortSpec{Bridge: "br_b", Namespace: "lab", VLAN: 101}, "10.9.0.9/24")
	elsewhere.reaches(t, twin)
	a1.misses(t, twin)

	// Peers change while ports are there.
	if err := s[0].m.SetPeers(t.Context(), "lab", []netip.Addr{s[2].IP}); err != nil {
		t.Fatal(err)
	}
	if err := s[1].m.SetPeers(t.Context(), "lab", []netip.Addr{s[2].IP}); err != nil {
		t.Fatal(err)
	}
	a1.run(t, "ip", "neigh", "flush", "all")
	b1.run(t, "ip", "neigh", "flush", "all")
	a1.misses(t, b1)
	a1.reaches(t, c1)
	if err := s[0].m.SetPeers(t.Context(), "lab", nil); err != nil {
		t.Fatal(err)
	}
	if left := s[0].links(t); strings.Contains(left, "vxlan") {
		t.Errorf("without peers there is %s", left)
	}
	overlaid(t, "lab", s...)
	a1.reaches(t, b1)
	for _, x := range s[0].m.Overlays() {
		if x.Off != "" || x.Err != nil || len(x.Remotes) != 2 {
			t.Errorf("overlay %+v", x)
		}
	}
}

// TestOverlayMTU: guests keep 1500 bytes, whatever the network between the
// hosts has.
func TestOverlayMTU(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			s := sites(t, lab.Options{Hosts: 2, MTU: mtu})
			overlaid(t, "lab", s...)
			a, b := s[0].station(t, "lab", 101, "10.9.0.1/24"), s[1].station(t, "lab", 101, "10.9.0.2/24")
			a.reaches(t, b)
			for _, size := range []int{1400, 1422, 1423, 1472} {
				if !a.pings(b, size) {
					t.Errorf("a ping of %d bytes is lost", size)
				}
			}
			transfer(t, a, b, 20<<20)
			before := fragments(t, s[0])
			transfer(t, a, b, 1<<20)
			if made := fragments(t, s[0]) - before; (made > 0) != (mtu == 1500) {
				t.Errorf("%d fragments", made)
			}
		})
	}
}

// TestOverlayIPv6 joins hosts that know each other by IPv6, for which the kernel
// fragments nothing: guests are told where a frame is too large.
func TestOverlayIPv6(t *testing.T) {
	for _, mtu := range []int{1500, 1570} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			s := sites(t, lab.Options{Hosts: 2, MTU: mtu})
			for i, x := range s {
				ip := fmt.Sprintf("fd00:77::%d", i+1)
				if out, err := x.Command(t.Context(), "ip", "addr", "add", ip+"/64", "dev", "eth0", "nodad").CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				x.IP = netip.MustParseAddr(ip)
			}
			overlaid(t, "lab", s...)
			a, b := s[0].station(t, "lab", 101, "10.9.0.1/24"), s[1].station(t, "lab", 101, "10.9.0.2/24")
			a.reaches(t, b)
			transfer(t, a, b, 5<<20)
			if mtu == 1570 && !a.pings(b, 1472) {
				t.Error("a full frame is lost")
			}
			told := mtu != 1500
			for tries := 0; !told && tries < 20; tries++ {
				out, _ := a.command("ping", "-n", "-c", "2", "-W", "1", "-M", "do", "-s", "1472", b.ip.String())
				told = strings.Contains(string(out), "mtu")
			}
			if !told {
				t.Error("nobody tells the guest")
			}
			if err := s[0].m.SetPeers(t.Context(), "lab", []netip.Addr{netip.MustParseAddr("10.77.0.2")}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(s[0].log.String(), "another family") {
				t.Error("nothing is said of a host of the other family")
			}
		})
	}
}

// fragments is how many a host has made.
func fragments(t *testing.T, s *site) int {
	t.Helper()
	out, err := s.Command(t.Context(), "cat", "/proc/net/snmp").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(string(out), "\n", 3)
	return must(strconv.Atoi(strings.Fields(lines[1])[19]))
}

// transfer sends so many bytes over TCP and checks that they arrive.
func transfer(t *testing.T, from, to *station, size int) {
	t.Helper()
	var listener net.Listener
	var conn net.Conn
	enter := func(st *station, f func() error) {
		onThread(t, func() error {
			if err := netns.Set(st.ns); err != nil {
				return err
			}
			return f()
		})
	}
	enter(to, func() (err error) {
		listener, err = net.Listen("tcp4", net.JoinHostPort(to.ip.String(), "5001"))
		return err
	})
	defer listener.Close()
	enter(from, func() (err error) {
		conn, err = net.DialTimeout("tcp4", listener.Addr().String(), time.Minute)
		return err
	})
	defer conn.Close()
	got := make(chan [32]byte, 1)
	go func() {
		sum := sha256.New()
		if c, err := listener.Accept(); err == nil {
			_, _ = io.Copy(sum, c)
			c.Close()
		}
		got <- [32]byte(sum.Sum(nil))
	}()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if <-got != sha256.Sum256(data) {
		t.Error("what was sent did not arrive")
	}
	t.Logf("%d bytes in %v", size, time.Since(start))
}

// TestOverlayAndTrunk: where a bridge leads elsewhere already there is no
// overlay, and somebody says so.
func TestOverlayAndTunnel(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 2})
	overlaid(t, "lab", s...)
	a, b := s[0].station(t, "lab", 101, "10.9.0.1/24"), s[1].station(t, "lab", 101, "10.9.0.2/24")
	a.reaches(t, b)
	way := network.Tunnel{Kind: "vxlan", Key: 7}
	var tunnels []string
	for i, x := range s {
		way.Remote = s[1-i].IP
		name, err := x.m.Tunnel(t.Context(), network.DefaultBridge, way)
		if err != nil {
			t.Fatal(err)
		}
		tunnels = append(tunnels, name)
		if o := x.m.Overlays(); len(o) != 1 || !strings.Contains(o[0].Off, name) {
			t.Errorf("beside %s: %+v", name, o)
		}
		if !strings.Contains(x.log.String(), "no overlay") {
			t.Error("nothing is said")
		}
	}
	a.reaches(t, b) // by the tunnel
	later := s[0].station(t, "lab", 102, "10.9.0.3/24")
	if o := s[0].m.Overlays(); len(o) != 2 || o[1].Off == "" {
		t.Errorf("a later VLAN: %+v", o)
	}
	for i, x := range s {
		if err := x.m.Untunnel(t.Context(), network.DefaultBridge, tunnels[i]); err != nil {
			t.Fatal(err)
		}
		if o := x.m.Overlays(); o[0].Off != "" {
			t.Errorf("after the tunnel: %+v", o)
		}
	}
	a.run(t, "ip", "neigh", "flush", "all")
	a.reaches(t, b)
	later.reaches(t, s[1].station(t, "lab", 102, "10.9.0.4/24"))
}

// TestOverlayTaken: two managers in one place cannot both join a VLAN; the
// second says why, and its ports live.
func TestOverlayTaken(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 1})[0]
	second := &site{Host: s.Host, base: t.TempDir()}
	second.start(t)
	t.Cleanup(func() {
		if err := second.m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	peers := []netip.Addr{netip.MustParseAddr("10.77.0.9")}
	for _, x := range []*site{s, second} {
		x.station(t, "lab", 101, "10.9.0.1/24")
		if err := x.m.SetOverlay(t.Context(), network.Overlay{Local: s.IP, ClusterID: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.m.SetPeers(t.Context(), "lab", peers); err != nil {
		t.Fatal(err)
	}
	if err := second.m.SetPeers(t.Context(), "lab", peers); !errors.Is(err, errs.Exists) {
		t.Errorf("the second overlay: %v", err)
	}
	if o := second.m.Overlays(); len(o) != 1 || o[0].Err == nil {
		t.Errorf("overlays: %+v", o)
	}
	if err := s.m.SetPeers(t.Context(), "lab", nil); err != nil {
		t.Fatal(err)
	}
	if err := second.m.SetPeers(t.Context(), "lab", append(peers, netip.MustParseAddr("10.77.0.8"))); err != nil {
		t.Errorf("when the first has gone: %v", err)
	}
}

func TestOverlayErrors(t *testing.T) {
	m := open(t, "")
	wantErr(t, m.SetOverlay(t.Context(), network.Overlay{ClusterID: 4096}), errs.Invalid, "invalid number of an overlay")
	for _, bad := range []netip.Addr{{}, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255")} {
		wantErr(t, m.SetPeers(t.Context(), "x", []netip.Addr{bad}), errs.Invalid, "not the address of a host")
	}
	wantErr(t, m.SetPeers(t.Context(), "x", make([]netip.Addr, 5000)), errs.Invalid, "an overlay joins at most")
}
