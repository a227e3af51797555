package network_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/host/lab"
	"minimega/internal/network"
)

// TestOverlayAdopted: a manager that comes after one that was killed has the
// overlay as it was, before anybody tells it.
func TestOverlayAdopted(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 2})
	overlaid(t, "lab", s...)
	a, b := s[0].station(t, "lab", 101, "10.9.0.1/24"), s[1].station(t, "lab", 101, "10.9.0.2/24")
	a.reaches(t, b)
	before := s[0].links(t)
	killed := []*network.Manager{s[0].m}
	pings := make(chan string)
	go func() {
		out, _ := a.command("ping", "-n", "-q", "-i", "0.02", "-c", "100", "-W", "10", b.ip.String())
		pings <- string(out)
	}()
	s[0].start(t)
	removed, err := s[0].m.Adopt(t.Context(), []network.PortSpec{a.spec()})
	if err != nil {
		t.Fatal(err)
	}
	if after := s[0].links(t); after != before || len(removed) != 0 {
		t.Errorf("before: %s\nafter: %s, removed %v", before, after, removed)
	}
	if out := <-pings; !strings.Contains(out, "100 received") && !strings.Contains(out, "99 received") {
		t.Errorf("what passed was lost meanwhile: %s", out)
	}
	a.reaches(t, b)
	b.reaches(t, a)
	later := s[0].station(t, "lab", 102, "10.9.0.3/24")
	later.reaches(t, s[1].station(t, "lab", 102, "10.9.0.4/24"))

	// One that knows nothing of an overlay ends what there is.
	killed = append(killed, s[0].m)
	if err := os.Remove(s[0].base + "/network.json"); err != nil {
		t.Fatal(err)
	}
	s[0].start(t)
	if _, err := s[0].m.Adopt(t.Context(), []network.PortSpec{a.spec(), later.spec()}); err != nil {
		t.Fatal(err)
	}
	if left := s[0].links(t); strings.Contains(left, "vxlan") {
		t.Errorf("an overlay that nobody knows is left: %s", left)
	}
	a.misses(t, b)
	t.Cleanup(func() { // only so that their goroutines end
		for _, m := range killed {
			_ = m.Close(context.Background())
		}
	})
}

// spec is the port as its VM would tell it after a restart.
func (st *station) spec() network.PortSpec {
	spec := st.port.PortSpec
	spec.Space = nil
	return spec
}

// TestRenumber moves ports of every kind to the new number of their alias, while
// they are used, and leaves others.
func TestRenumber(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 2})
	overlaid(t, "lab", s...)
	spec := network.PortSpec{Namespace: "lab", VLAN: 101, Alias: "lab//a"}
	a, b := s[0].stationOn(t, spec, "10.9.0.1/24"), s[0].stationOn(t, spec, "10.9.0.2/24")
	byNumber := s[0].station(t, "lab", 101, "10.9.0.3/24")
	far := s[1].stationOn(t, network.PortSpec{Namespace: "lab", VLAN: 150, Alias: "lab//a"}, "10.9.0.4/24")
	tap, hostTap := spec, spec
	tap.Kind, hostTap.Kind, hostTap.Name = network.Tap, network.Host, "renumbered"
	if _, err := s[0].m.Create(t.Context(), []network.PortSpec{tap, hostTap}); err != nil {
		t.Fatal(err)
	}
	a.reaches(t, b)
	a.reaches(t, byNumber)
	a.misses(t, far)
	moves := []network.Renumbering{{Alias: "lab//a", Old: 101, New: 150}, {Alias: "lab//none", Old: 101, New: 7}}
	if err := s[0].m.Renumber(t.Context(), moves); err != nil {
		t.Fatal(err)
	}
	for _, p := range s[0].m.Ports() {
		want := 150
		if p.Name == byNumber.tap {
			want = 101
		}
		if p.VLAN != want {
			t.Errorf("%s is on VLAN %d, want %d", p.Name, p.VLAN, want)
		}
		if want == 150 && p.Index == 0 {
			t.Errorf("%s has no device", p.Name)
		}
	}
	a.run(t, "ip", "neigh", "flush", "all")
	a.reaches(t, b)
	a.reaches(t, far)
	a.misses(t, byNumber)
	if err := s[0].m.Flush(); err != nil {
		t.Fatal(err)
	}
	if text := string(must(os.ReadFile(s[0].base + "/taps"))); !strings.Contains(text, "150") || strings.Contains(text, "101") {
		t.Errorf("taps: %s", text)
	}
	if err := s[0].m.Renumber(t.Context(), []network.Renumbering{{Alias: "lab//a", Old: 150, New: 5000}}); err == nil {
		t.Error("a number that is none was taken")
	}
}

// TestOverlayStress lets ports come, move and go while peers do, and expects
// that what is there in the end is as it should be, and that nothing else is.
func TestOverlayStress(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 1})[0]
	if err := s.m.SetOverlay(t.Context(), network.Overlay{Local: s.IP, ClusterID: 5}); err != nil {
		t.Fatal(err)
	}
	peers := func(n int) (list []netip.Addr) {
		for i := range n {
			list = append(list, netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + i)}))
		}
		return list
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for range 25 {
				ns := strconv.Itoa(r.IntN(3))
				p, err := s.m.Create(t.Context(), []network.PortSpec{
					{Kind: network.Tap, VLAN: 101 + r.IntN(3), Namespace: ns}, {Kind: network.Tap, VLAN: 101 + r.IntN(3), Namespace: ns}})
				if err != nil {
					t.Error(err)
					return
				}
				err = errors.Join(s.m.SetPeers(t.Context(), ns, peers(r.IntN(4))), s.m.Connect(t.Context(), p[0].Name, "", 101+r.IntN(3)),
					s.m.Delete(t.Context(), p[0].Name), s.m.Release(t.Context(), p[1].Name))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.m.Settle(t.Context()); err != nil { // what was released stays a moment
		t.Fatal(err)
	}
	last := s.station(t, "0", 101, "10.9.0.1/24")
	for i := range 3 {
		if err := s.m.SetPeers(t.Context(), strconv.Itoa(i), peers(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range s.m.Overlays() {
		if o.VLAN != last.port.VLAN || len(o.Remotes) != 1 || o.Err != nil {
			t.Errorf("%+v", o)
		}
	}
	if n := strings.Count(s.links(t), "vxlan"); n != 1 || len(s.m.Overlays()) != 1 {
		t.Errorf("%d tunnels, %+v", n, s.m.Overlays())
	}
	out, err := s.Command(t.Context(), "sh", "-c", "bridge fdb show | grep -c '00:00:00:00:00:00 .*dst 10.77.0.100'").Output()
	if err != nil || strings.TrimSpace(string(out)) != "1" {
		t.Errorf("entries to flood to: %s %v", out, err)
	}
	start := time.Now()
	const rounds = 20
	for i := range rounds {
		if _, err := s.m.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, VLAN: 200 + i, Namespace: "2"}}); err != nil {
			t.Fatal(err)
		}
	}
	joined := time.Since(start)
	start = time.Now()
	for i := range rounds {
		if _, err := s.m.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, VLAN: 300 + i, Namespace: "none"}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a port on a VLAN of its own: %v with an overlay, %v without", joined/rounds, time.Since(start)/rounds)
}
