package namespace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

// numbers stands for the owner of VLANs: every alias is VLAN 101.
type numbers struct{}

func (numbers) Resolve(_, spec string) (int, string, error) { return 101, spec, nil }

func newTestRegistry(t *testing.T) *Registry { return keptRegistry(t, "") }

// keptRegistry keeps in a directory what a later daemon is to know.
func keptRegistry(t *testing.T, dir string) *Registry {
	t.Helper()
	vms := vm.NewManager(vm.Options{Base: t.TempDir(), Host: "h", Engines: []vm.Engine{&vmtest.Engine{}}, Network: &vmtest.Network{},
		VLANName: func(string, int) string { return "" }, Parallel: 4, Log: slog.New(slog.DiscardHandler)}, 0)
	t.Cleanup(vms.Close)
	return NewRegistry(Options{Cluster: cluster.New("h"), Facts: func() host.Facts { return host.Facts{CPUs: 2, MemTotal: 1024, Limit: -1} }, VMs: vms, VLANs: numbers{}, Dir: dir, Log: slog.New(slog.DiscardHandler),
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

// Whoever looks at the queue while it is launched, planned and explained sees
// groups that do not change under their eyes. (For the race detector.)
func TestQueueIsLookedAt(t *testing.T) {
	ns, err := newTestRegistry(t).Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	ns.SetQueueing(true)
	ended := make(chan struct{})
	var looking sync.WaitGroup
	look := func(f func()) {
		looking.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					f()
				}
			}
		})
	}
	look(func() {
		groups := ns.Queue()
		for range 1000 {
			_ = namesOf(groups)
		}
	})
	look(func() { _, _ = ns.Plan(t.Context()) }) // the queue may have changed
	look(func() { _, _ = ns.Why(t.Context(), "", false) })
	for range 20 {
		if err := ns.Launch(t.Context(), vm.KVM, "3", "", nil); err != nil {
			t.Fatal(err)
		}
		if err := ns.LaunchQueue(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	close(ended)
	looking.Wait()
	if got := len(ns.registry.opts.VMs.List("lab")); got != 60 {
		t.Errorf("%d VMs", got)
	}
}

// Of passes that have ended the latest are remembered.
func TestRunsAreBounded(t *testing.T) {
	ns, err := newTestRegistry(t).Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	running := ns.begin(nil, nil)
	for range maxRuns + 10 {
		ns.begin(nil, nil).end()
	}
	if runs := ns.Runs(); len(runs) != maxRuns || !runs[0].End.IsZero() || !ns.Launching() {
		t.Errorf("%d runs, the first ended %v", len(runs), runs[0].End)
	}
	running.end()
	if ns.Launching() {
		t.Error("still running")
	}
}

// A dry run whose queue is launched meanwhile leaves what was launched alone.
func TestPlanTooLate(t *testing.T) {
	r := newTestRegistry(t)
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	ns.SetQueueing(true)
	if err := ns.Launch(t.Context(), vm.KVM, "a", "", nil); err != nil {
		t.Fatal(err)
	}
	facts := r.opts.Facts
	var q *taken
	r.opts.Facts = func() host.Facts {
		ns.mu.Lock()
		defer ns.mu.Unlock()
		q = ns.takeLocked()
		return facts()
	}
	if _, err := ns.Plan(t.Context()); !errors.Is(err, errs.State) {
		t.Errorf("planned: %v", err)
	}
	if len(q.groups) != 1 || q.groups[0].hosts != nil {
		t.Errorf("taken: %+v", q.groups)
	}
}
