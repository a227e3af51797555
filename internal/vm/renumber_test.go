package vm_test

import (
	"context"
	"slices"
	"testing"

	"minimega/internal/network"
	"minimega/internal/vm"
)

// TestRenumber: interfaces follow the alias that put them on a VLAN, those that
// name a number or another namespace's alias of the same number stay.
func TestRenumber(t *testing.T) {
	w := newWorld(t)
	c := withNets(101, 101, 101, 102, 101)
	for i, alias := range []string{"a", "", "other//a", "b", "ns//a"} {
		c.Networks[i].Alias = alias
	}
	if err := w.launch(t, c, "x", "y"); err != nil {
		t.Fatal(err)
	}
	moves := []network.Renumbering{{Alias: "ns//a", Old: 101, New: 102}, {Alias: "ns//b", Old: 102, New: 103}}
	if err := w.Renumber(context.Background(), moves); err != nil {
		t.Fatal(err)
	}
	want := []int{102, 101, 101, 103, 102}
	for _, in := range w.Info("ns") {
		for i, n := range in.Networks {
			p, _ := w.net.Port(n.Tap)
			if n.VLAN != want[i] || p.VLAN != want[i] {
				t.Errorf("%s:%d is on VLAN %d, its tap on %d, want %d", in.Name, i, n.VLAN, p.VLAN, want[i])
			}
		}
	}
	if same, changed := vm.Renumbered("ns", c.Networks[1:3], moves); changed || !slices.Equal(same, c.Networks[1:3]) {
		t.Errorf("changed %v", same)
	}
}
