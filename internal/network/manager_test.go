package network_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/network"
	"minimega/internal/network/linux"
	"minimega/internal/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a manager in a namespace of its own, and checks at the end of the
// test that nothing is left.
func open(t *testing.T, base string) *network.Manager {
	t.Helper()
	networktest.Host(t)
	return openHere(t, base)
}

func openHere(t *testing.T, base string) *network.Manager {
	t.Helper()
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}, Alone: true}.Check(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dp, err := linux.New(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	m, err := network.New(dp, network.Options{Base: base, VLAN: func(v int) string { return fmt.Sprintf("ns//a%d", v) }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func create(t *testing.T, m *network.Manager, specs ...network.PortSpec) []network.Port {
	t.Helper()
	ports, err := m.Create(t.Context(), specs)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

func wantErr(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.HasPrefix(err.Error(), text) {
		t.Fatalf("got %v (%v), want %s: %s", err, errs.KindOf(err), kind, text)
	}
}

func names(ports []network.Port) []string {
	var list []string
	for _, p := range ports {
		list = append(list, p.Name)
	}
	return list
}

func TestPorts(t *testing.T) {
	m := open(t, "")
	ctx := t.Context()
	p := create(t, m,
		network.PortSpec{Name: "one", Kind: network.Tap, VLAN: 101, Owner: "vm", Namespace: "x"},
		network.PortSpec{Name: "two", Kind: network.Host, Bridge: "br_a", VLAN: 0, Namespace: "x"})
	if p[0].Bridge != network.DefaultBridge || p[0].Owner != "vm" {
		t.Errorf("got %+v", p[0])
	}
	if diff := cmp.Diff([]string{"one", "two"}, names(m.Ports())); diff != "" {
		t.Error(diff)
	}
	if err := m.Connect(ctx, "one", "br_b", 7); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Port("one"); got.Bridge != "br_b" || got.VLAN != 7 {
		t.Errorf("got %+v", got)
	}
	if err := m.Disconnect(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Port("one"); got.Bridge != "" || got.VLAN != network.Disconnected {
		t.Errorf("got %+v", got)
	}
	want := []network.BridgeInfo{
		{Name: "br_a", VLANs: []int{0}, Config: map[string]string{}},
		{Name: "br_b", Config: map[string]string{}},
		{Name: "mega_bridge", Config: map[string]string{}},
	}
	if diff := cmp.Diff(want, m.Bridges()); diff != "" {
		t.Error(diff)
	}
	wantErr(t, m.DestroyBridge(ctx, "br_a"), errs.State, "bridge br_a is in use by two")
	wantErr(t, m.DestroyBridge(ctx, "br_x"), errs.NotFound, "bridge not found: br_x")
	if err := m.DestroyBridge(ctx, "br_b"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.Delete(ctx, "one", "three", "two"), errs.NotFound, "unknown tap: three")
	if len(m.Ports()) != 2 {
		t.Error("a failed Delete deleted something")
	}
	if err := m.Delete(ctx, "one", "two", "one"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.Delete(ctx, "one"), errs.NotFound, "unknown tap: one")
}

func TestBadRequestsChangeNothing(t *testing.T) {
	m := open(t, "")
	create(t, m, network.PortSpec{Name: "here", Kind: network.Tap, VLAN: 1})
	before := networktest.Links(t)
	for _, c := range []struct {
		spec network.PortSpec
		kind errs.Kind
		text string
	}{
		{network.PortSpec{Name: "here", Kind: network.Host}, errs.Exists, "tap already on bridge"},
		{network.PortSpec{Name: "lo", Kind: network.Tap}, errs.Exists, "create tap: an interface named lo exists already"},
		{network.PortSpec{Name: "lo", Kind: network.Host}, errs.Exists, "create tap: an interface named lo exists already"},
		{network.PortSpec{Name: "all", Kind: network.Host}, errs.Invalid, "`all` is a reserved word -- cannot use for tap name"},
		{network.PortSpec{Name: "a/b", Kind: network.Host}, errs.Invalid, "invalid tap name"},
		{network.PortSpec{Name: "0123456789abcdef", Kind: network.Host}, errs.Invalid, "invalid tap name"},
		{network.PortSpec{Name: "..", Kind: network.Host}, errs.Invalid, "invalid tap name"},
		{network.PortSpec{Name: "x%d", Kind: network.Tap}, errs.Invalid, "invalid tap name"},
		{network.PortSpec{Kind: network.Tap, VLAN: 4096}, errs.Invalid, "invalid VLAN (0 <= vlan < 4096)"},
		{network.PortSpec{Kind: network.Tap, Bridge: "a b"}, errs.Invalid, "invalid bridge name"},
		{network.PortSpec{Kind: network.Tap, Bridge: "lo", VLAN: 5}, errs.Exists, "lo is an interface of this host"},
		{network.PortSpec{}, errs.Invalid, "unknown kind of port"},
	} {
		_, err := m.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, VLAN: 3}, {Name: "mine", Kind: network.Host, VLAN: 4}, c.spec})
		wantErr(t, err, c.kind, c.text)
	}
	_, err := m.Create(t.Context(), []network.PortSpec{{Name: "twice", Kind: network.Tap}, {Name: "twice", Kind: network.Host}})
	wantErr(t, err, errs.Exists, "tap already on bridge")
	wantErr(t, m.Connect(t.Context(), "here", "", -1), errs.Invalid, "invalid VLAN")
	wantErr(t, m.Connect(t.Context(), "here", "x/y", 1), errs.Invalid, "invalid bridge name")
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("failed requests left (-before +now):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"here"}, names(m.Ports())); diff != "" {
		t.Error(diff)
	}
	create(t, m, network.PortSpec{Name: "mine", Kind: network.Tap}, network.PortSpec{Name: "twice", Kind: network.Tap}) // the names are free again
}

func TestHostTaps(t *testing.T) {
	m := open(t, "")
	ctx := t.Context()
	p := create(t, m,
		network.PortSpec{Name: "h1", Kind: network.Host, VLAN: 1, Namespace: "x"}, network.PortSpec{Name: "h2", Kind: network.Host, VLAN: 1, Namespace: "x"},
		network.PortSpec{Name: "h3", Kind: network.Host, VLAN: 1, Namespace: "y"}, network.PortSpec{Name: "t", Kind: network.Tap, VLAN: 1, Namespace: "x"})
	guest := networktest.NewGuest(t, p[2], "10.8.0.3/24")
	if err := m.AddIP(ctx, "h1", "10.8.0.1/24"); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("h1")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.8.0.1/24" || addrs[0].Broadcast.String() != "10.8.0.255" {
		t.Fatalf("addresses of h1: %v %v", addrs, err)
	}
	if !networktest.Here(t, "10.8.0.1").Reaches(t, guest, time.Minute) {
		t.Error("the host does not reach a guest through its host tap")
	}
	wantErr(t, m.AddIP(ctx, "h1", "10.8.0.1/24"), errs.Exists, "h1 has the address 10.8.0.1/24 already")
	wantErr(t, m.AddIP(ctx, "h1", "10.8.0.1"), errs.Invalid, "invalid address")
	wantErr(t, m.AddIP(ctx, "t", "10.8.0.9/24"), errs.Invalid, "not a host tap")
	wantErr(t, m.DeleteHostTap(ctx, "x", "t"), errs.Invalid, "not a host tap")
	wantErr(t, m.DeleteHostTap(ctx, "x", "h3"), errs.Invalid, "not a host tap in active namespace")
	wantErr(t, m.DeleteHostTap(ctx, "x", "h4"), errs.NotFound, "unknown tap")
	if err := m.DeleteHostTap(ctx, "x", "all"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"h3", "t"}, names(m.Ports())); diff != "" {
		t.Error(diff)
	}
	if err := m.DeleteHostTap(ctx, "y", "h3"); err != nil {
		t.Fatal(err)
	}
}

func TestAddresses(t *testing.T) {
	m := open(t, "")
	p := create(t, m, network.PortSpec{Kind: network.Host, VLAN: 101}, network.PortSpec{Kind: network.Host, VLAN: 101}, network.PortSpec{Kind: network.Host, VLAN: 101})
	g, h := networktest.NewGuest(t, p[0], "10.7.0.1/24"), networktest.NewGuest(t, p[1], "10.7.0.2/24")
	six := networktest.NewGuest(t, p[2], "fd07::1/64")
	for i, guest := range []*networktest.Guest{g, h, six} {
		if err := m.SetMAC(p[i].Name, guest.MAC); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.SetMAC(p[1].Name, "02:aa:aa:aa:aa:aa"); err != nil { // not what it sends from
		t.Fatal(err)
	}
	if !g.Reaches(t, h, time.Minute) {
		t.Fatal("guests do not reach each other")
	}
	eventually(t, "10.7.0.1", func() string { ip4, _ := m.Addresses(p[0].Name); return ip4 })
	eventually(t, "fd07::1", func() string { six.Solicit(t, "fd07::2"); _, ip6 := m.Addresses(p[2].Name); return ip6 })
	if ip4, ip6 := m.Addresses(p[1].Name); ip4+ip6 != "" {
		t.Errorf("learned %s %s from a MAC that is not the NIC's", ip4, ip6)
	}
	wantErr(t, m.SetMAC("nope", ""), errs.NotFound, "unknown tap: nope")
}

func eventually(t *testing.T, want string, get func() string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for {
		got := get()
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	base := t.TempDir()
	m := open(t, base)
	create(t, m,
		network.PortSpec{Name: "h1", Kind: network.Host, VLAN: 101}, network.PortSpec{Name: "t1", Kind: network.Tap, VLAN: 102},
		network.PortSpec{Name: "longer_name", Kind: network.Host, Bridge: "br0", VLAN: 7})
	if err := m.Flush(); err != nil {
		t.Fatal(err)
	}
	check := func(name, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(base, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%q, want\n%q", name, err, got, want)
		}
	}
	check("taps", "Bridge      Tap         VLAN\nmega_bridge h1          ns//a101\nbr0         longer_name ns//a7\n")
	check("bridges", "Bridge       Existed before minimega  Active VLANS\nbr0          false                    [7]\nmega_bridge  false                    [101 102]\n")
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	check("taps", "Bridge Tap VLAN\n")
	_, err := m.Create(context.Background(), []network.PortSpec{{Kind: network.Tap}})
	wantErr(t, err, errs.State, "the network is being shut down")
}

// TestPreexisting checks that a bridge of the host is VLAN 0 of its name, and
// that it outlives us.
func TestPreexisting(t *testing.T) {
	networktest.Host(t)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: 1400}}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(br); err != nil {
			t.Error(err)
		}
	})
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	m := openHere(t, "")
	p := create(t, m, network.PortSpec{Kind: network.Host, Bridge: "br0"}, network.PortSpec{Kind: network.Tap, Bridge: "br0", VLAN: 5})
	if b := m.Bridges(); len(b) != 1 || !b[0].Preexisting {
		t.Errorf("got %+v", b)
	}
	links, _ := m.Links("br0")
	if len(links) != 2 || links[0].Name != "br0" || links[1].Name == "br0" {
		t.Errorf("got %v", links)
	}
	on, err := netlink.LinkByIndex(p[0].Index)
	if err != nil || on.Attrs().MasterIndex != br.Index || on.Attrs().MTU != 1400 {
		t.Errorf("port: %v %v", on, err)
	}
	if err := m.Delete(t.Context(), names(p)...); err != nil {
		t.Fatal(err)
	}
	if err := m.DestroyBridge(t.Context(), "br0"); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(networktest.Links(t), "br0") {
		t.Error("a bridge of the host was removed")
	}
}

func TestTwoManagers(t *testing.T) {
	a := open(t, "")
	create(t, a, network.PortSpec{Kind: network.Tap, VLAN: 5})
	t.Run("second", func(t *testing.T) {
		// In a namespace of its own it has the same names for its own.
		b := open(t, "")
		create(t, b, network.PortSpec{Kind: network.Tap, VLAN: 5})
	})
	mine := create(t, a, network.PortSpec{Kind: network.Host, VLAN: 5})[0]
	if err := a.AddIP(t.Context(), mine.Name, "10.6.0.2/24"); err != nil {
		t.Fatal(err)
	}
	b := openHere(t, "")
	p := create(t, b, network.PortSpec{Kind: network.Host, VLAN: 5})[0]
	g := networktest.NewGuest(t, p, "10.6.0.1/24")
	if g.Reaches(t, networktest.Here(t, "10.6.0.2"), 200*time.Millisecond) {
		t.Error("two daemons on one host share a VLAN")
	}
}

// TestCrowd has many callers create, move and delete at once, some of them the
// same ports.
func TestCrowd(t *testing.T) {
	m := open(t, t.TempDir())
	shared := create(t, m, network.PortSpec{Name: "shared", Kind: network.Tap, VLAN: 1})[0]
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 4 {
				ports, err := m.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, VLAN: w % 2}, {Kind: network.Host, VLAN: i % 2}})
				if err != nil {
					t.Error(err)
					return
				}
				if err := m.Connect(t.Context(), "shared", "", w); err != nil {
					t.Error(err)
				}
				if _, err := m.Counters(t.Context(), names(ports)...); err != nil {
					t.Error(err)
				}
				if err := m.Delete(t.Context(), names(ports)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if diff := cmp.Diff([]string{shared.Name}, names(m.Ports())); diff != "" {
		t.Error(diff)
	}
}
