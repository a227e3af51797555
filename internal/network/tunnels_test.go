package network_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"minimega/internal/errs"
	"minimega/internal/host/lab"
	"minimega/internal/network"
)

// TestLinked makes tunnels between each two of three hosts, which is a loop, and
// sends along them; to say it twice does nothing.
func TestLinked(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 3})
	var stations []*station
	ways := make([][]network.Tunnel, len(s))
	for i, x := range s {
		for j, y := range s {
			if i != j {
				key := uint32(0xffff0000 + min(i, j)*16 + max(i, j)) // one for each pair
				ways[i] = append(ways[i], network.Tunnel{Kind: "vxlan", Remote: y.IP, Key: key})
			}
		}
		spec := network.PortSpec{Bridge: "br_ns", Namespace: "lab", VLAN: 101}
		stations = append(stations, x.stationOn(t, spec, "10.9.0."+string(rune('1'+i))+"/24"))
	}
	for i, x := range s {
		for range 2 {
			names, err := x.m.Linked(t.Context(), "br_ns", ways[i])
			if err != nil {
				t.Fatal(err)
			}
			if len(names) != 2 || len(x.m.Tunnels("br_ns")) != 2 {
				t.Errorf("tunnels %v, all %+v", names, x.m.Tunnels("br_ns"))
			}
		}
	}
	for i, st := range stations {
		st.reachesBy(t, stations[(i+1)%3])
		if !st.pings(stations[(i+1)%3], 1472) {
			t.Error("a full frame is lost")
		}
	}
	if busy := received(t, s[0]); busy > 5000 {
		t.Errorf("the loop is closed: %d packets", busy)
	}
	before := s[0].m.Tunnels("br_ns")
	bad := []network.Tunnel{{Kind: "vxlan", Remote: s[1].IP, Key: 99}, {Kind: "carrier pigeon", Remote: s[1].IP}}
	_, err := s[0].m.Linked(t.Context(), "br_ns", bad)
	wantErr(t, err, errs.Invalid, "unknown kind of tunnel")
	if diff := cmp.Diff(before, s[0].m.Tunnels("br_ns"), cmp.Comparer(func(a, b network.Tunnel) bool { return a == b })); diff != "" {
		t.Errorf("a failure left: %s", diff)
	}
	for i, x := range s {
		for range 2 {
			if err := x.m.Unlinked(t.Context(), "br_ns", ways[i]); err != nil {
				t.Fatal(err)
			}
		}
		if left := x.m.Tunnels("br_ns"); len(left) != 0 {
			t.Errorf("left: %+v", left)
		}
	}
	stations[0].misses(t, stations[1])
}

// reachesBy is reaches for a network in which a spanning tree is still growing.
func (st *station) reachesBy(t *testing.T, to *station) {
	t.Helper()
	for range 60 {
		if st.pingsWithin(to, 56, "1") {
			return
		}
	}
	t.Errorf("%v does not reach %v", st.ip, to.ip)
}

// received is how many packets a host has got on its cable.
func received(t *testing.T, s *site) (n uint64) {
	t.Helper()
	err := s.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			n = link.Attrs().Statistics.RxPackets
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
	return n
}
