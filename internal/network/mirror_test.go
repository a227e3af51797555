package network_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"minimega/internal/errs"
	"minimega/internal/network"
)

func TestMirrors(t *testing.T) {
	m := open(t, "")
	ctx := t.Context()
	create(t, m, network.PortSpec{Name: "a", Kind: network.Tap, VLAN: 1}, network.PortSpec{Name: "b", Kind: network.Tap, VLAN: 1},
		network.PortSpec{Name: "c", Kind: network.Host, VLAN: 1}, network.PortSpec{Name: "off", Kind: network.Tap, VLAN: -1})
	if err := m.Mirror(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := m.Mirror(ctx, "a", "c"); err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.Mirror(ctx, "a", "a"), errs.Invalid, "cannot mirror tap to itself")
	wantErr(t, m.Mirror(ctx, "a", "b"), errs.Exists, "destination tap is already a mirror")
	wantErr(t, m.Mirror(ctx, "b", "a"), errs.Invalid, "source tap is a mirror itself")
	wantErr(t, m.Mirror(ctx, "off", "a"), errs.NotFound, "source tap is not on bridge")
	wantErr(t, m.Mirror(ctx, "a", "off"), errs.NotFound, "destination tap is not on bridge")
	wantErr(t, m.Unmirror(ctx, "a"), errs.NotFound, "not a valid mirror")
	if diff := cmp.Diff([]network.Mirror{{From: "a", To: "b"}, {From: "a", To: "c"}}, m.Mirrors()); diff != "" {
		t.Error(diff)
	}
	if err := m.Delete(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmirror(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if got := m.Mirrors(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
