package network_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"minimega/internal/host/lab"
	"minimega/internal/network"
	"minimega/internal/vlan"
)

// line joins two registries as a mesh does, until it is cut.
type line struct {
	other *vlan.Registry
	cut   *atomic.Bool
}

func (l line) Propose(_ context.Context, c vlan.Claim) ([]vlan.Claim, int) {
	if l.cut.Load() {
		return nil, 0
	}
	against, err := l.other.Answer(c)
	if err != nil {
		panic(err)
	}
	return against, 1
}

func (l line) Publish(claims []vlan.Claim) {
	if !l.cut.Load() {
		if _, err := l.other.Merge(claims); err != nil {
			panic(err)
		}
	}
}

// TestHeal: two hosts that cannot see each other give one number to two names,
// and two numbers to one name. When they can, everything that is on one name is
// connected, and what is on two names is apart.
func TestHeal(t *testing.T) {
	s := sites(t, lab.Options{Hosts: 2})
	overlaid(t, "lab", s...)
	cut := &atomic.Bool{}
	var names []*vlan.Registry
	for _, x := range s {
		r := vlan.New("", slog.New(slog.DiscardHandler))
		t.Cleanup(func() { r.Close() })
		r.OnRenumber(func(ctx context.Context, moves []vlan.Renumber) {
			var list []network.Renumbering
			for _, m := range moves {
				list = append(list, network.Renumbering{Alias: m.Qualified(), Old: m.Old, New: m.New})
			}
			if err := x.m.Renumber(ctx, list); err != nil {
				t.Error(err)
			}
		})
		names = append(names, r)
	}
	names[0].SetPeers(line{names[1], cut})
	names[1].SetPeers(line{names[0], cut})
	on := func(i int, alias, cidr string) *station {
		n, _, err := names[i].Resolve("lab", alias)
		if err != nil {
			t.Fatal(err)
		}
		return s[i].stationOn(t, network.PortSpec{Namespace: "lab", VLAN: n, Alias: vlan.FullName("lab", alias)}, cidr)
	}
	a, b := on(0, "early", "10.9.0.1/24"), on(1, "early", "10.9.0.2/24")
	a.reaches(t, b)

	cut.Store(true)
	left, right := on(0, "left", "10.9.0.3/24"), on(1, "right", "10.9.0.4/24")
	right2 := on(1, "right", "10.9.0.5/24")
	common := on(0, "common", "10.9.0.6/24")
	on(1, "more", "10.9.0.7/24")
	common2 := on(1, "common", "10.9.0.8/24")
	left.reaches(t, right) // wrong, and why numbers must agree
	common.misses(t, common2)

	cut.Store(false)
	if _, err := names[0].Merge(names[1].ClaimsFor(names[0].Digest())); err != nil {
		t.Fatal(err)
	}
	if _, err := names[1].Merge(names[0].ClaimsFor(names[1].Digest())); err != nil {
		t.Fatal(err)
	}
	for i, r := range names { // which waits for the ports that move
		if _, _, err := r.Resolve("lab", "common"); err != nil {
			t.Fatal(i, err)
		}
	}
	for _, st := range []*station{left, right, common, common2} {
		st.run(t, "ip", "neigh", "flush", "all")
	}
	left.misses(t, right)
	right.reaches(t, right2)
	common.reaches(t, common2)
	a.reaches(t, b)
	left2 := on(1, "left", "10.9.0.9/24")
	left.reaches(t, left2)
}
