package linux

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

// lonely makes a port of a container, and what ends its network namespace.
func lonely(t *testing.T, d *Datapath) (p network.Port, end func()) {
	t.Helper()
	ns, inside := anotherSpace(t)
	ports, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Container, Bridge: "br_a", VLAN: 7, Space: ns, Inside: "veth0"}})
	if err != nil {
		t.Fatal(err)
	}
	return ports[0], func() { inside.Close(); ns.Close() }
}

// Devices go with their namespaces, and the bridge serves the next ones.
func TestRetire(t *testing.T) {
	networktest.Host(t)
	before := networktest.Links(t)
	d := newDatapath(t)
	p, end := lonely(t, d)
	bridge, _ := d.Links("br_a")
	for tries := 1; ; tries++ { // a busy kernel may be late, and it is done for it
		end()
		start := time.Now()
		if err := d.Retire(t.Context(), []network.Port{p}); err != nil {
			t.Fatal(err)
		}
		if d.space.has(p.Index) {
			t.Error("the device is still there")
		}
		took := time.Since(start)
		p, end = lonely(t, d)
		if took < passTime {
			break
		}
		if tries == 10 {
			t.Fatalf("the device went only after %v", took)
		}
	}
	defer end()
	again, _ := d.Links("br_a")
	if diff := cmp.Diff(bridge, again); diff != "" {
		t.Errorf("not the same bridge device:\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // waits for nothing: the namespace is held
	if err := d.Retire(ctx, []network.Port{p}); err != nil {
		t.Fatal(err)
	}
	if d.space.has(p.Index) {
		t.Error("the device of a namespace that is held is still there")
	}
	if err := d.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, networktest.Links(t)); diff != "" {
		t.Errorf("left (-before +now):\n%s", diff)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A bridge without ports goes by itself, and with Close and Destroy.
func TestLinger(t *testing.T) {
	networktest.Host(t)
	before := networktest.Links(t)
	for name, remove := range map[string]func(*Datapath) error{
		"by itself": func(*Datapath) error { return nil },
		"Close":     func(d *Datapath) error { return d.Close(context.Background()) },
		"Destroy":   func(d *Datapath) error { return d.Destroy(t.Context(), "br_a") },
	} {
		d := newDatapath(t)
		p, end := lonely(t, d)
		end()
		if err := d.Retire(t.Context(), []network.Port{p}); err != nil {
			t.Fatal(err)
		}
		if links, _ := d.Links("br_a"); len(links) != 1 {
			t.Errorf("%s: the bridge went at once", name)
		}
		err := remove(d)
		if name == "by itself" {
			for until := time.Now().Add(lingerTime + time.Minute); ; time.Sleep(20 * time.Millisecond) {
				if links, _ := d.Links("br_a"); len(links) == 0 || time.Now().After(until) {
					break
				}
			}
			d.idle.Wait()
		}
		if diff := cmp.Diff(before, networktest.Links(t)); diff != "" || err != nil {
			t.Errorf("%s left (-before +now), %v:\n%s", name, err, diff)
		}
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// What an owner left who does not live any more is found, of all kinds.
func TestOrphansOfAllKinds(t *testing.T) {
	networktest.Host(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	id := t.TempDir()
	dead, err := New(id, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dead.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	p, end := lonely(t, dead)
	defer end()
	more, err := dead.Create(t.Context(), []network.PortSpec{
		{Name: "orphan_tap", Kind: network.Tap, Bridge: "br_a", VLAN: 7, Owner: "vm a:0"},
		{Name: "orphan_host", Kind: network.Host, Bridge: "br_a", VLAN: 7}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDatapath(t)
	defer func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	inner, err := d.devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{p.Name, more[0].Name}
	for _, dev := range inner { // the bridge, and the end of the host tap that is on it
		if dev.index == more[1].Index || dev.kind == "bridge" {
			want = append(want, dev.name)
		}
	}
	slices.Sort(want)
	found, err := d.Orphans(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("orphans (-want +found):\n%s", diff)
	}
	if found, err := d.Orphans(t.Context(), []string{id}); err != nil || len(found) != 0 {
		t.Errorf("of one who lives: %v %v", found, err)
	}
}
