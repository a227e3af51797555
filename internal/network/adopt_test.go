package network_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/network/linux"
	"minimega/internal/network/networktest"
)

// dynasty makes managers one after the other for the same base directory.
type dynasty struct {
	t    *testing.T
	base string
	log  *slog.Logger
}

func newDynasty(t *testing.T) *dynasty {
	networktest.Host(t)
	d := &dynasty{t: t, base: t.TempDir(), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	before := networktest.Links(t)
	t.Cleanup(func() {
		if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
			t.Errorf("left (-before +now):\n%s", diff)
		}
	})
	return d
}

// next makes a manager. Those before it are as good as dead: they are closed
// after it, when there is nothing left for them to remove.
func (d *dynasty) next() *network.Manager {
	d.t.Helper()
	dp, err := linux.New(d.base, d.log)
	if err != nil {
		d.t.Fatal(err)
	}
	m, err := network.New(dp, network.Options{Base: d.base, Log: d.log})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			d.t.Error(err)
		}
	})
	return m
}

func vmPort(name string, vlan int) network.PortSpec {
	return network.PortSpec{Name: name, Kind: network.Tap, VLAN: vlan, Owner: "vm a:0", Namespace: "ns"}
}

func specs(ports []network.Port) []network.PortSpec {
	list := make([]network.PortSpec, len(ports))
	for i, p := range ports {
		list[i] = p.PortSpec
	}
	return list
}

// Ports, bridges and mirrors go on as they were, and nothing else is there.
func TestAdopt(t *testing.T) {
	d := newDynasty(t)
	first := d.next()
	taps := create(t, first, vmPort("", 5), vmPort("", 5), vmPort("", 6), vmPort("", network.Disconnected), vmPort("", 7))
	create(t, first, network.PortSpec{Name: "hostt", Kind: network.Host, VLAN: 5, Bridge: "br", Namespace: "ns", Owner: "host"})
	ctx := t.Context()
	for _, err := range []error{
		first.AddIP(ctx, "hostt", "10.9.0.1/24"),
		first.ConfigureBridge(ctx, "br", "mcast_snooping_enable", "true"),
		first.EnsureBridge(ctx, "empty"),
		first.Mirror(ctx, taps[0].Name, taps[2].Name),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := networktest.OpenTap(t, taps[0].Name), networktest.OpenTap(t, taps[1].Name)
	links := networktest.Links(t)

	second := d.next()
	removed, err := second.Adopt(ctx, specs(taps[:4])) // the fifth is of a VM that was not made
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(removed, taps[4].Name) || len(removed) != 2 { // with its VLAN
		t.Errorf("removed %v", removed)
	}
	if now := networktest.Links(t); len(now) != len(links)-2 {
		t.Errorf("links: %v, before %v", now, links)
	}
	if got, want := second.Ports(), first.Ports(); !reflect.DeepEqual(got, slices.DeleteFunc(want, func(p network.Port) bool { return p.Name == taps[4].Name })) {
		t.Errorf("ports: %+v, before %+v", got, want)
	}
	want := first.Bridges()
	for i := range want {
		want[i].VLANs = slices.DeleteFunc(want[i].VLANs, func(v int) bool { return v == 7 })
	}
	if got := second.Bridges(); !reflect.DeepEqual(got, want) {
		t.Errorf("bridges: %+v, before %+v", got, want)
	}
	if got := second.Mirrors(); !reflect.DeepEqual(got, first.Mirrors()) {
		t.Errorf("mirrors: %v", got)
	}
	frame := slices.Concat([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x09\x88\xb5"), make([]byte, 50))
	arrived := false
	for end := time.Now().Add(time.Minute); !arrived && time.Now().Before(end); {
		networktest.SendFrame(t, a, frame)
		arrived = networktest.ReceiveFrame(t, b, frame[:14], 50*time.Millisecond)
	}
	if !arrived {
		t.Error("a frame does not get from tap to tap")
	}
	// What is made from now on has a place, what goes leaves none.
	more := create(t, second, vmPort("", 5), vmPort("", 8))
	names := []string{more[0].Name, more[1].Name, taps[0].Name, taps[1].Name, taps[2].Name, taps[3].Name, "hostt"}
	if err := second.Delete(ctx, names...); err != nil {
		t.Error(err)
	}
}

// A port that was being moved is where the VM's file says; one that has gone is
// named; one of the same name that is somebody else's is left alone.
func TestAdoptDifferent(t *testing.T) {
	d := newDynasty(t)
	first := d.next()
	taps := create(t, first, vmPort("", 5), vmPort("", 5))
	links := networktest.Links(t)
	moved := taps[0].PortSpec
	moved.VLAN = 9
	other := vmPort("lo", 5)
	second := d.next()
	_, err := second.Adopt(t.Context(), []network.PortSpec{moved, taps[1].PortSpec, vmPort("nosuch", 5), other})
	if err == nil || !strings.Contains(err.Error(), "nosuch (vm a:0), lo (vm a:0)") {
		t.Errorf("adopt: %v", err)
	}
	if p, ok := second.Port(taps[0].Name); !ok || p.VLAN != 9 {
		t.Errorf("%+v", p)
	}
	if now := networktest.Links(t); len(now) != len(links)+1 { // VLAN 9
		t.Errorf("links: %v, before %v", now, links)
	}
}

func TestDiscard(t *testing.T) {
	d := newDynasty(t)
	before := networktest.Links(t)
	first := d.next()
	tap := create(t, first, vmPort("", 5), network.PortSpec{Name: "hostt", Kind: network.Host, VLAN: 6, Namespace: "ns"})[0]
	if err := errors.Join(first.Mirror(t.Context(), tap.Name, "hostt"), first.EnsureBridge(t.Context(), "empty")); err != nil {
		t.Fatal(err)
	}
	removed, err := d.next().Discard(t.Context())
	want := []string{"mirror from " + tap.Name + " to hostt", "host tap hostt of namespace ns", "bridge empty", "bridge mega_bridge", "interface " + tap.Name}
	if err != nil || len(removed) != len(want)+3 || !slices.Equal(removed[:len(want)], want) { // and the inner end, two VLANs
		t.Errorf("removed %q, %v", removed, err)
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Error(diff)
	}
	if again, err := d.next().Discard(t.Context()); len(again) != 0 || err != nil {
		t.Errorf("again: %q, %v", again, err)
	}
}

// What the file says of a bridge is said, but that one which was there before us
// goes: it does not. A file that is broken says nothing, and is no reason to stay.
func TestDiscardBridges(t *testing.T) {
	d := newDynasty(t)
	for text, want := range map[string][]string{
		"{": nil,
		`{"Bridges": [{"Name": "ours", "Tunnels": [{"Kind": "gre", "Remote": "10.0.0.9", "Name": "mm1"}]}, {"Name": "theirs", "Preexisting": true, "Trunks": ["eth7"]}]}`: {
			"gre tunnel mm1 of bridge ours to 10.0.0.9", "bridge ours", "trunk of bridge theirs to eth7"},
	} {
		if err := os.WriteFile(filepath.Join(d.base, "network.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if removed, err := d.next().Discard(t.Context()); err != nil || !slices.Equal(removed, want) {
			t.Errorf("%s: removed %q, %v", text, removed, err)
		}
	}
}

// A file that is broken is named; the ports of VMs are adopted nevertheless.
func TestAdoptBroken(t *testing.T) {
	d := newDynasty(t)
	first := d.next()
	taps := create(t, first, vmPort("", 5))
	// With the host's tap the file is there, and first writes no more.
	create(t, first, network.PortSpec{Name: "hostt", Kind: network.Host, VLAN: 6})
	if err := os.WriteFile(filepath.Join(d.base, "network.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	second := d.next()
	if _, err := second.Adopt(t.Context(), specs(taps)); err == nil || !strings.Contains(err.Error(), "network.json") {
		t.Errorf("adopt: %v", err)
	}
	if _, ok := second.Port(taps[0].Name); !ok {
		t.Error("the tap was not adopted")
	}
}

// A tunnel has the name that it had, and a device on every VLAN.
func TestAdoptTunnel(t *testing.T) {
	d := newDynasty(t)
	first := d.next()
	name, err := first.Tunnel(t.Context(), "br", network.Tunnel{Kind: "vxlan", Remote: netip.MustParseAddr("127.0.0.9"), Key: 3})
	if errors.Is(err, errs.Unsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	spec := vmPort("", 5)
	spec.Bridge = "br"
	taps := create(t, first, spec)
	links := networktest.Links(t)
	second := d.next()
	if _, err := second.Adopt(t.Context(), specs(taps)); err != nil {
		t.Fatal(err)
	}
	if got, want := second.Bridges(), first.Bridges(); !reflect.DeepEqual(got, want) || got[0].Tunnels[0] != name {
		t.Errorf("%+v, before %+v", got, want)
	}
	if now := networktest.Links(t); len(now) != len(links) {
		t.Errorf("links: %v, before %v", now, links)
	}
	if err := second.Untunnel(t.Context(), "br", name); err != nil {
		t.Error(err)
	}
}

// The name of an adopted port whose device has gone is nobody else's: its owner
// does not know yet, and deletes what has that name.
func TestAdoptedNames(t *testing.T) {
	d := newDynasty(t)
	first := d.next()
	taps := create(t, first, vmPort("", 5), vmPort("", 5))
	second := d.next()
	if _, err := second.Adopt(t.Context(), append(specs(taps), vmPort("mega_tap2", 5))); err == nil { // the third has gone already
		t.Error("nobody misses mega_tap2")
	}
	link, err := netlink.LinkByName(taps[1].Name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	more := create(t, second, vmPort("", 5), vmPort("", 6))
	for _, p := range more {
		if p.Name == taps[1].Name || p.Name == "mega_tap2" {
			t.Errorf("%s is given away", p.Name)
		}
	}
	if err := second.Release(t.Context(), taps[1].Name); err != nil {
		t.Error(err)
	}
	if err := second.Delete(t.Context(), more[0].Name, more[1].Name, taps[0].Name); err != nil {
		t.Error(err)
	}
}
