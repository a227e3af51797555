package linux

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

// anotherSpace makes a network namespace and a handle on its devices.
func anotherSpace(t *testing.T) (*os.File, *netlink.Handle) {
	t.Helper()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	ns, err := netns.New() // of this thread, which Host has locked
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(ns), "netns")
	t.Cleanup(func() { h.Close(); f.Close() })
	return f, h
}

func TestContainerPorts(t *testing.T) {
	networktest.Host(t)
	before := networktest.Links(t)
	d := newDatapath(t)
	ns, inside := anotherSpace(t)
	spec := func(name, inner, mac string) network.PortSpec {
		return network.PortSpec{Name: name, Kind: network.Container, Bridge: "br_a", VLAN: 7, Space: ns, Inside: inner, MAC: mac}
	}
	ports, err := d.Create(t.Context(), []network.PortSpec{spec("", "veth0", "02:00:00:00:00:07"), spec("mine", "veth1", "")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := inside.LinkByName("veth0")
	if err != nil || l.Attrs().HardwareAddr.String() != "02:00:00:00:00:07" {
		t.Errorf("%v %v", l, err)
	}
	outer, err := netlink.LinkByName(ports[1].Name)
	if err != nil || ports[1].Name != "mine" || outer.Attrs().Index != ports[1].Index || outer.Attrs().MasterIndex == 0 {
		t.Errorf("%+v %v %v", ports[1], outer, err)
	}
	for _, c := range []struct {
		spec network.PortSpec
		kind errs.Kind
	}{
		{spec("mine", "veth2", ""), errs.Exists},
		{spec("", "veth2", "junk"), errs.Invalid},
		{spec("", "veth2", "01:00:00:00:00:07"), errs.Invalid},
		{spec("", "veth2", "00:00:00:00:00:00"), errs.Invalid},
		{network.PortSpec{Kind: network.Container, Bridge: "br_a", VLAN: 7}, errs.Internal},
	} {
		if _, err := d.Create(t.Context(), []network.PortSpec{spec("", "veth3", ""), c.spec}); !errors.Is(err, c.kind) && errs.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.spec, err)
		}
	}
	if _, err := d.Create(t.Context(), []network.PortSpec{spec("", "veth0", "")}); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "has an interface veth0 already") {
		t.Errorf("the same interface twice: %v", err)
	}
	links, err := inside.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	veths := 0
	for _, l := range links {
		if l.Type() == "veth" {
			veths++
		}
	}
	if veths != 2 {
		t.Errorf("%d interfaces inside, want 2: failures leave some", veths)
	}
	if err := d.Delete(context.Background(), ports); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("left (-before +now):\n%s", diff)
	}
}

// A daemon may die between the making of a pair and its description, or over the
// removal of such a pair: the next one knows it all the same, and nobody else's does.
func TestHalfMadeCable(t *testing.T) {
	for name, removing := range map[string]bool{"made": false, "being removed": true} {
		t.Run(name, func(t *testing.T) { halfMade(t, removing) })
	}
}

func halfMade(t *testing.T, removing bool) {
	networktest.Host(t)
	before := networktest.Links(t)
	first, err := New("owner", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer closeClean(t, first)
	ns, _ := anotherSpace(t)
	b := &building{d: first, segments: make([]*segment, 1),
		ports: []network.Port{{PortSpec: network.PortSpec{Kind: network.Container, Space: ns, Inside: "veth1", Owner: "vm a:1", VLAN: network.Disconnected}}}}
	if err := b.cables(t.Context()); err != nil {
		t.Fatal(err)
	}
	tap := b.ports[0].Name
	if removing {
		if err := first.nl.all(t.Context(), []*nl.NetlinkRequest{setGroup(b.ports[0].Index, first.doomGroup())}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		owner string
		want  []string
	}{{"another", nil}, {"owner", []string{tap}}} {
		d, err := New(c.owner, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer closeClean(t, d)
		_, removed, err := d.Adopt(t.Context(), nil)
		if diff := cmp.Diff(c.want, removed); diff != "" || err != nil {
			t.Errorf("%s, %v; removed (-want +got):\n%s", c.owner, err, diff)
		}
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("left (-before +now):\n%s", diff)
	}
}

// What a daemon was about to remove when it died, and the next one has adopted,
// does not go with what that removes.
func TestSpared(t *testing.T) {
	networktest.Host(t)
	before := networktest.Links(t)
	owner := t.TempDir()
	open := func() *Datapath {
		d, err := New(owner, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	spec := network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 7, Owner: "vm a:0"}
	first := open()
	ports, err := first.Create(t.Context(), []network.PortSpec{spec, spec})
	if err == nil {
		err = first.nl.all(t.Context(), []*nl.NetlinkRequest{setGroup(ports[0].Index, first.doomGroup())})
	}
	if err != nil {
		t.Fatal(err)
	}
	second := open()
	found, _, err := second.Adopt(t.Context(), []network.PortSpec{ports[0].PortSpec, ports[1].PortSpec})
	if err == nil {
		err = second.Delete(t.Context(), found[1:])
	}
	if err != nil || !slices.Contains(networktest.Links(t), ports[0].Name) {
		t.Errorf("%s has gone too, %v", ports[0].Name, err)
	}
	if err := errors.Join(second.Delete(t.Context(), found[:1]), second.Close(t.Context()), first.Close(t.Context())); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("left (-before +now):\n%s", diff)
	}
}

// A port whose namespace has gone went with it, which is no error.
func TestContainerPortWithoutSpace(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	ns, inside := anotherSpace(t)
	ports, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Container, Bridge: "br_a", VLAN: 7, Space: ns, Inside: "veth0"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := inside.LinkByName("veth0")
	if err == nil {
		err = inside.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(context.Background(), ports); err != nil {
		t.Error(err)
	}
}

// Names that are taken when a pair is made, and free when one looks, are passed
// by like those that stay taken, however many of those are before them.
func TestGhosts(t *testing.T) {
	networktest.Host(t)
	before := networktest.Links(t)
	d := newDatapath(t)
	other := func(i int) netlink.Link {
		return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: network.AutoName + strconv.Itoa(i)}}
	}
	for i := range maxVanished {
		if err := netlink.LinkAdd(other(i)); err != nil {
			t.Fatal(err)
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE) // of this namespace, for any thread
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, stop := context.WithCancel(t.Context())
	var flicker sync.WaitGroup
	flicker.Go(func() {
		for ctx.Err() == nil {
			l := other(maxVanished)
			err := h.LinkAdd(l)
			if err == nil {
				err = h.LinkDel(l)
			}
			if err != nil && !errors.Is(err, unix.EEXIST) { // or else it is the container's
				t.Error(err)
			}
		}
	})
	ns, _ := anotherSpace(t)
	for range 60 {
		d.nextTap.Store(0)
		ports, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Container, Bridge: "br_a", VLAN: 7, Space: ns, Inside: "veth0"}})
		if err == nil {
			err = d.Delete(t.Context(), ports)
		}
		if err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	flicker.Wait()
	for i := range maxVanished {
		if err := netlink.LinkDel(other(i)); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("left (-before +now):\n%s", diff)
	}
}
