package linux

import (
	"context"
	"os"
	"sync"
	"syscall"
	"testing"

	"minimega/internal/network"
	"minimega/internal/network/networktest"
)

// TestForkMeanwhile starts processes while taps are made: none may inherit one,
// which would then be busy for the hypervisor that opens it.
func TestForkMeanwhile(t *testing.T) {
	networktest.Host(t)
	d := newDatapath(t)
	defer closeClean(t, d)
	ctx, stop := context.WithCancel(t.Context())
	var forks sync.WaitGroup
	defer forks.Wait()
	defer stop()
	for range 4 {
		forks.Go(func() {
			for ctx.Err() == nil {
				p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = p.Wait()
			}
		})
	}
	for range 100 {
		ports, err := d.Create(ctx, []network.PortSpec{{Kind: network.Tap, VLAN: network.Disconnected}})
		if err != nil {
			t.Fatal(err)
		}
		networktest.OpenTap(t, ports[0].Name).Close()
		if err := d.Delete(ctx, ports); err != nil {
			t.Fatal(err)
		}
	}
}
