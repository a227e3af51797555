package linux

import (
	"testing"

	"minimega/internal/host/hosttest"
	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

// TestForkMeanwhile starts processes while taps are made: none may inherit one,
// which would then be busy for the hypervisor that opens it.
func TestForkMeanwhile(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	defer hosttest.Forks(t)()
	for range 100 {
		ports, err := d.Create(t.Context(), []network.PortSpec{{Kind: network.Tap, VLAN: network.Disconnected}})
		if err != nil {
			t.Fatal(err)
		}
		networktest.OpenTap(t, ports[0].Name).Close()
		if err := d.Delete(t.Context(), ports); err != nil {
			t.Fatal(err)
		}
	}
}
