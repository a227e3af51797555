package linux

import (
	"net/netip"
	"testing"

	"minimega/internal/network"
)

func TestVNI(t *testing.T) {
	conf := network.Overlay{ClusterID: 0xabc}
	if got := vni(conf, network.DefaultBridge, 0x123); got != 0xabc123 {
		t.Errorf("got %x", got)
	}
	seen := map[uint32]string{}
	for _, bridge := range []string{network.DefaultBridge, "br_a", "br_b", "foo"} {
		n := vni(conf, bridge, 4095)
		if n >= 1<<24 || n&0xfff != 4095 {
			t.Errorf("%s: %x", bridge, n)
		}
		if other, ok := seen[n]; ok {
			t.Errorf("%s and %s share %x", bridge, other, n)
		}
		seen[n] = bridge
	}
}

func TestOverlayText(t *testing.T) {
	s := &segment{bridge: "br_a", vlan: 101}
	for _, conf := range []network.Overlay{
		{}, {ClusterID: 4095}, {ClusterID: 1, Local: netip.MustParseAddr("10.0.0.1")}, {Local: netip.MustParseAddr("fd00::1")},
	} {
		bridge, vlan, got, ok := parseOverlay(s.describe() + overlayText(conf))
		if !ok || vlan != 101 || got != conf {
			t.Errorf("%+v became %q %d %+v %t", conf, bridge, vlan, got, ok)
		}
	}
	if _, _, ok := parseSegment(s.describe() + overlayText(network.Overlay{})); ok {
		t.Error("an overlay is taken for a bridge")
	}
}

// FuzzParseOverlay reads descriptions, which anybody may write.
func FuzzParseOverlay(f *testing.F) {
	for _, s := range []string{"minimega: br, VLAN 5, overlay 7", "minimega: br, VLAN 5, overlay 7 from ::1", "minimega: wire to 5", ", overlay ", "minimega: x, VLAN -1, overlay 99999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if to, ok := parseWire(text); ok && to <= 0 {
			t.Fatalf("a wire to %d", to)
		}
		bridge, vlan, conf, ok := parseOverlay(text)
		if !ok {
			return
		}
		s := &segment{bridge: bridge, vlan: vlan}
		b2, v2, c2, ok := parseOverlay(s.describe() + overlayText(conf))
		if !ok || b2 != bridge || v2 != vlan || c2 != conf {
			t.Fatalf("%q: %q %d %+v became %q %d %+v", text, bridge, vlan, conf, b2, v2, c2)
		}
	})
}
