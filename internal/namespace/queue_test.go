package namespace

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"minimega/internal/cluster"
	"minimega/internal/host"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

// numbers stands for the owner of VLANs: every alias is VLAN 101.
type numbers struct{}

func (numbers) Resolve(_, spec string) (int, string, error) { return 101, spec, nil }

func newTestRegistry(t *testing.T) *Registry {
	t.Helper()
	vms := vm.NewManager(vm.Options{Base: t.TempDir(), Host: "h", Engines: []vm.Engine{&vmtest.Engine{}}, Network: &vmtest.Network{},
		VLANName: func(string, int) string { return "" }, Parallel: 4, Log: slog.New(slog.DiscardHandler)}, 0)
	t.Cleanup(vms.Close)
	return NewRegistry(Options{Cluster: cluster.New("h"), Facts: func() host.Facts { return host.Facts{CPUs: 2, MemTotal: 1024, Limit: -1} }, VMs: vms, VLANs: numbers{}, Log: slog.New(slog.DiscardHandler),
		NetDrivers: func(context.Context, string) func(string) bool { return func(string) bool { return false } }})
}

// Each of many sessions that launch at once is told of its own VMs only.
func TestLaunchSideBySide(t *testing.T) {
	ns, err := newTestRegistry(t).Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	const sessions, launches = 8, 40
	var wg sync.WaitGroup
	for s := range sessions {
		wg.Go(func() {
			for l := range launches {
				if err := ns.Launch(context.Background(), vm.KVM, fmt.Sprintf("s%d-%d", s, l), "", nil); err != nil {
					t.Errorf("session %d: %v", s, err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(ns.registry.opts.VMs.List("lab")); got != sessions*launches {
		t.Errorf("%d VMs, want %d", got, sessions*launches)
	}
	if got := len(ns.Queue()); got != 0 {
		t.Errorf("%d groups still wait", got)
	}
}

// A launch that cannot be placed leaves nothing in the queue.
func TestLaunchNowhere(t *testing.T) {
	ns, err := newTestRegistry(t).Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Edit(func(c *vm.Config) error { c.Colocate = "nobody"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(context.Background(), vm.KVM, "a", "", nil); err == nil {
		t.Error("launched beside a VM that does not exist")
	}
	if got := len(ns.Queue()); got != 0 {
		t.Errorf("%d groups wait", got)
	}
}
