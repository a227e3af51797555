package networktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"minimega/internal/errs"
	"minimega/internal/network"
)

const (
	yes = time.Minute            // how long to wait for what must happen
	no  = 200 * time.Millisecond // how long to watch that something does not happen
)

// Suite checks a datapath. open makes one in the network namespace of the
// calling thread; the suite closes it.
func Suite(t *testing.T, open func(t testing.TB) network.Datapath) {
	for name, check := range map[string]func(*testing.T, *bench){
		"Reach": reach, "Reach6": reach6, "Taps": taps, "Move": move, "HostStaysOut": hostStaysOut,
		"HostIsSilent": hostIsSilent, "Unplugged": unplugged, "Mirror": mirror,
		"AllOrNothing": allOrNothing, "NamesTaken": namesTaken, "AutoNames": autoNames,
		"DeleteTwice": deleteTwice, "Cancelled": cancelled, "Destroy": destroy, "Links": links,
		"Counters": counters, "Hundred": hundred, "Concurrent": concurrent, "CloseRemovesAll": closeRemovesAll,
	} {
		t.Run(name, func(t *testing.T) {
			Host(t)
			b := &bench{dp: open(t), before: Links(t)}
			t.Cleanup(func() {
				if err := b.dp.Close(context.Background()); err != nil {
					t.Error(err)
				}
				b.clean(t)
			})
			check(t, b)
		})
	}
}

type bench struct {
	dp     network.Datapath
	before []string
	guests int
}

// clean checks that the host has the interfaces that it had before.
func (b *bench) clean(t *testing.T) {
	t.Helper()
	if diff := cmp.Diff(b.before, Links(t)); diff != "" {
		t.Errorf("interfaces differ from before (-before +now):\n%s", diff)
	}
}

func (b *bench) create(t *testing.T, specs ...network.PortSpec) []network.Port {
	t.Helper()
	ports, err := b.dp.Create(context.Background(), specs)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ports {
		if p.Index <= 0 || p.Name == "" || specs[i].Name != "" && p.Name != specs[i].Name {
			t.Fatalf("spec %+v became %+v", specs[i], p)
		}
	}
	return ports
}

func (b *bench) delete(t *testing.T, ports ...network.Port) {
	t.Helper()
	if err := b.dp.Delete(context.Background(), ports); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) move(t *testing.T, p network.Port, bridge string, vlan int) {
	t.Helper()
	if err := b.dp.Move(context.Background(), p, bridge, vlan); err != nil {
		t.Fatal(err)
	}
}

// guest makes a Host port and a guest on it, the nth with the address 10.9.0.n.
func (b *bench) guest(t *testing.T, bridge string, vlan int) (*Guest, network.Port) {
	t.Helper()
	b.guests++
	p := b.create(t, network.PortSpec{Kind: network.Host, Bridge: bridge, VLAN: vlan})[0]
	return NewGuest(t, p, fmt.Sprintf("10.9.0.%d/24", b.guests)), p
}

func expect(t *testing.T, from, to *Guest, want bool) {
	t.Helper()
	within := yes
	if !want {
		within = no
	}
	if from.Reaches(t, to, within) != want {
		t.Fatalf("%s reaches %s: %t, want %t", from.Addr, to.Addr, !want, want)
	}
}

func reach(t *testing.T, b *bench) {
	a1, _ := b.guest(t, "br_a", 101)
	a2, p2 := b.guest(t, "br_a", 101)
	other, _ := b.guest(t, "br_a", 102)
	elsewhere, _ := b.guest(t, "br_b", 101)
	expect(t, a1, a2, true)
	expect(t, a2, a1, true)
	expect(t, a1, other, false)
	expect(t, other, a1, false)
	expect(t, a1, elsewhere, false)
	b.delete(t, p2)
	if slices.Contains(Links(t), p2.Name) {
		t.Error("deleted port is still there")
	}
}

func reach6(t *testing.T, b *bench) {
	ports := b.create(t, network.PortSpec{Kind: network.Host, Bridge: "br_a", VLAN: 7}, network.PortSpec{Kind: network.Host, Bridge: "br_a", VLAN: 7})
	g, h := NewGuest(t, ports[0], "fd00:9::1/64"), NewGuest(t, ports[1], "fd00:9::2/64")
	expect(t, g, h, true)
}

// taps checks that a tap can be opened as QEMU does, and carries frames to its
// VLAN only.
func taps(t *testing.T, b *bench) {
	ports := b.create(t,
		network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 0},
		network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 0},
		network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 4095},
		network.PortSpec{Kind: network.Tap, VLAN: network.Disconnected},
	)
	from, to := OpenTap(t, ports[0].Name), OpenTap(t, ports[1].Name)
	other, alone := OpenTap(t, ports[2].Name), OpenTap(t, ports[3].Name)
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5hello"), make([]byte, 50)...)
	arrives := func() bool {
		for end := time.Now().Add(yes); time.Now().Before(end); {
			SendFrame(t, from, frame)
			if ReceiveFrame(t, to, frame[:19], 50*time.Millisecond) {
				return true
			}
		}
		return false
	}
	if !arrives() {
		t.Fatal("a frame does not get from tap to tap")
	}
	if ReceiveFrame(t, other, frame[:19], no) || ReceiveFrame(t, alone, frame[:19], no) {
		t.Fatal("a frame got where it does not belong")
	}
}

func move(t *testing.T, b *bench) {
	a, _ := b.guest(t, "br_a", 101)
	m, p := b.guest(t, "br_a", 102)
	c, _ := b.guest(t, "br_b", 102)
	expect(t, a, m, false)
	b.move(t, p, "br_a", 101)
	expect(t, a, m, true)
	b.move(t, p, "br_b", 102)
	expect(t, c, m, true)
	expect(t, a, m, false)
	b.move(t, p, "", network.Disconnected)
	expect(t, c, m, false)
	b.move(t, p, "br_b", 102)
	expect(t, m, c, true)
}

func allOrNothing(t *testing.T, b *bench) {
	taken := b.create(t, network.PortSpec{Name: "here", Kind: network.Tap, Bridge: "br_a", VLAN: 1})
	before := Links(t)
	for _, kind := range []network.Kind{network.Tap, network.Host} {
		specs := []network.PortSpec{
			{Kind: network.Tap, Bridge: "br_a", VLAN: 1}, {Kind: network.Host, Bridge: "br_a", VLAN: 2},
			{Name: "here", Kind: kind, Bridge: "br_b", VLAN: 3},
			{Kind: network.Tap, Bridge: "br_a", VLAN: 4}, {Kind: network.Host, Bridge: "br_a", VLAN: 5},
		}
		_, err := b.dp.Create(context.Background(), specs)
		if !errors.Is(err, errs.Exists) {
			t.Fatalf("a name that is taken gave %v", err)
		}
		if diff := cmp.Diff(before, Links(t)); diff != "" {
			t.Fatalf("a failed Create left (-before +now):\n%s", diff)
		}
	}
	b.delete(t, taken...)
	b.clean(t)
}

// namesTaken checks that interfaces of others are never taken over.
func namesTaken(t *testing.T, b *bench) {
	before := b.before
	t.Cleanup(func() { b.before = before })
	b.before = slices.Clone(before)
	for _, name := range []string{"mega_tap0", "mega_tap2"} {
		other := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(other); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(other) })
		b.before = append(b.before, name)
	}
	slices.Sort(b.before)
	ports := b.create(t,
		network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 1}, network.PortSpec{Kind: network.Host, Bridge: "br_a", VLAN: 1},
		network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 1})
	for _, p := range ports {
		if p.Name == "mega_tap0" || p.Name == "mega_tap2" {
			t.Errorf("took over %s", p.Name)
		}
	}
	if _, err := b.dp.Create(context.Background(), []network.PortSpec{{Name: "mega_tap2", Kind: network.Tap, VLAN: -1}}); !errors.Is(err, errs.Exists) {
		t.Errorf("a name that somebody else has: %v", err)
	}
	if err := b.dp.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.clean(t)
	b.dp = closed{}
}

// closed stands for a datapath that a check has closed itself.
type closed struct{ network.Datapath }

func (closed) Close(context.Context) error { return nil }

func autoNames(t *testing.T, b *bench) {
	ports := b.create(t, slices.Repeat([]network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 1}, {Kind: network.Host, Bridge: "br_a", VLAN: 1}}, 10)...)
	seen := map[string]bool{}
	for _, p := range ports {
		if len(p.Name) <= len(network.AutoName) || p.Name[:len(network.AutoName)] != network.AutoName || seen[p.Name] {
			t.Errorf("name %q", p.Name)
		}
		seen[p.Name] = true
	}
}

func deleteTwice(t *testing.T, b *bench) {
	ports := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 1}, network.PortSpec{Kind: network.Host, Bridge: "br_a", VLAN: 1})
	link, err := netlink.LinkByName(ports[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil { // by somebody else
		t.Fatal(err)
	}
	b.delete(t, ports...)
	b.clean(t)
	b.delete(t, ports...)
}

func cancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := b.dp.Create(ctx, []network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 1}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.clean(t)
	// And in the middle, wherever that is.
	for i := range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Millisecond)
		ports, err := b.dp.Create(ctx, slices.Repeat([]network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 1}, {Kind: network.Host, Bridge: "br_a", VLAN: 2}}, 20))
		cancel()
		if err == nil {
			b.delete(t, ports...)
		}
		b.clean(t)
	}
}

func destroy(t *testing.T, b *bench) {
	g, _ := b.guest(t, "br_a", 101)
	h, p := b.guest(t, "br_a", 101)
	expect(t, g, h, true)
	if err := b.dp.Destroy(context.Background(), "br_a"); err != nil {
		t.Fatal(err)
	}
	expect(t, g, h, false)
	b.move(t, p, "br_a", 101)
	k, _ := b.guest(t, "br_a", 101)
	expect(t, h, k, true)
}

func links(t *testing.T, b *bench) {
	list, changed := b.dp.Links("br_a")
	if len(list) != 0 {
		t.Fatalf("links before the first port: %v", list)
	}
	p := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 101}, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 5})
	wait := func() {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(yes):
			t.Fatal("change of links was not told")
		}
	}
	wait()
	list, changed = b.dp.Links("br_a")
	if len(list) != 2 || list[0].VLAN != 5 || list[1].VLAN != 101 {
		t.Fatalf("links: %v", list)
	}
	for _, l := range list {
		watchUnicast(t, b, l)
	}
	b.delete(t, p...)
	wait()
}

// watchUnicast checks that the link shows what one guest sends to another.
func watchUnicast(t *testing.T, b *bench, l network.Link) {
	t.Helper()
	g, gp := b.guest(t, "br_a", l.VLAN)
	h, hp := b.guest(t, "br_a", l.VLAN)
	expect(t, g, h, true) // and the bridge learns where they are
	watch := Watch(t, l.Name)
	expect(t, g, h, true)
	dst, err := net.ParseMAC(h.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if !SeesFrame(t, watch, dst, yes) {
		t.Errorf("a frame from guest to guest is not seen on %s", l.Name)
	}
	b.delete(t, gp, hp)
}

func counters(t *testing.T, b *bench) {
	p := b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_a", VLAN: 101})[0]
	tap := OpenTap(t, p.Name)
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5"), make([]byte, 86)...)
	for range 10 {
		SendFrame(t, tap, frame)
	}
	all, err := b.dp.Counters(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if c := all[p.Index]; c.TxPackets != 10 || c.TxBytes != 1000 {
		t.Errorf("10 frames of 100 bytes from the guest: %+v", c)
	}
}

func hundred(t *testing.T, b *bench) {
	start := time.Now()
	ports := b.create(t, slices.Repeat([]network.PortSpec{{Kind: network.Tap, Bridge: "br_a", VLAN: 101}}, 100)...)
	made := time.Since(start)
	start = time.Now()
	b.delete(t, ports...)
	t.Logf("100 taps: created and connected in %v, deleted in %v", made, time.Since(start))
	b.clean(t)
}

func concurrent(t *testing.T, b *bench) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 5 {
				ports, err := b.dp.Create(context.Background(), []network.PortSpec{
					{Kind: network.Tap, Bridge: "br_a", VLAN: 100 + (w+i)%3}, {Kind: network.Host, Bridge: "br_a", VLAN: 100},
				})
				if err != nil {
					t.Error(err)
					return
				}
				if err := b.dp.Move(context.Background(), ports[0], "br_b", 100+w%2); err != nil {
					t.Error(err)
				}
				if err := b.dp.Delete(context.Background(), ports); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.clean(t)
}

func closeRemovesAll(t *testing.T, b *bench) {
	b.guest(t, "br_a", 101)
	b.create(t, network.PortSpec{Kind: network.Tap, Bridge: "br_b", VLAN: 0}, network.PortSpec{Kind: network.Tap, VLAN: -1})
	if err := b.dp.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.clean(t)
	b.dp = closed{}
}
