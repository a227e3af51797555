package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/meshtest"
)

// ambiguous is a mesh in which one name is that of several nodes.
type ambiguous struct {
	meshage.Mesh
	name string
}

func (a ambiguous) Open(ctx context.Context, to, protocol string) (meshage.Stream, error) {
	if to == a.name {
		return nil, meshage.ErrAmbiguous
	}
	return a.Mesh.Open(ctx, to, protocol)
}

// among makes h, a registry in a mesh with b and c, in which the name of twin,
// if there is one, is that of two nodes.
func among(t *testing.T, twin string) (*Registry, *meshtest.Hub) {
	t.Helper()
	hub := meshtest.NewHub()
	t.Cleanup(hub.Close)
	r := newTestRegistry(t)
	for _, name := range []string{"b", "c"} {
		c := cluster.New(name)
		cluster.Serve(c, "clear", func(context.Context, string, clearOrder, func(none)) (none, error) { return none{}, nil })
		cluster.Serve(c, "survey", func(context.Context, string, surveyQuery, func(none)) (surveyReport, error) {
			return surveyReport{Facts: host.Facts{CPUs: 2, MemTotal: 1024, Limit: -1}}, nil
		})
		cluster.Serve(c, "launch", func(_ context.Context, _ string, o launchOrder, say func(launched)) (none, error) {
			say(launched{Done: o.count()})
			return none{}, nil
		})
		c.Join(hub.Join(name))
	}
	r.opts.Cluster.Join(ambiguous{hub.Join("h"), twin})
	return r, hub
}

// A namespace is cleared on its hosts, and those of them that cannot be reached
// are named, also after they have left.
func TestClearSaysWhereNot(t *testing.T) {
	for _, name := range []string{"lab", "all"} {
		r, hub := among(t, "")
		ns, err := r.Get("lab")
		if err != nil {
			t.Fatal(err)
		}
		if got := ns.Hosts(); !slices.Equal(got, []string{"b", "c"}) {
			t.Fatalf("hosts: %q", got)
		}
		hub.Kill("c")
		err = r.ClearEverywhere(t.Context(), name)
		if !errors.Is(err, errs.Unreachable) || cluster.HostOf(err) != "c" || !strings.Contains(err.Error(), "host c: ") {
			t.Errorf("clear %s: %v", name, err)
		}
		if slices.Contains(r.Names(), "lab") {
			t.Errorf("clear %s: it is still here", name)
		}
	}
}

// A host that was away when a namespace ended is named each time, also by the
// next daemon and by `clear all`, until it has been told or is taken out.
func TestClearNamesUntilTold(t *testing.T) {
	r, hub := among(t, "")
	r.opts.Dir = filepath.Join(t.TempDir(), "configs")
	r.owed = newOwed(r.opts.Dir)
	if _, err := r.Get("lab"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get("other"); err != nil {
		t.Fatal(err)
	}
	if err := r.ClearEverywhere(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	if got := r.owed.to(cluster.All).Hosts; got != nil {
		t.Fatalf("all are told, but owed are %q", got)
	}
	hub.Kill("c")
	untold := func(name string) {
		t.Helper()
		if err := r.ClearEverywhere(t.Context(), name); cluster.HostOf(err) != "c" || strings.Count(err.Error(), "host ") != 2 {
			t.Errorf("clear %s without c: %v", name, err)
		}
	}
	untold("lab")
	untold("lab")
	if err := r.ClearEverywhere(t.Context(), "other"); err != nil {
		t.Errorf("c has been told of this one: %v", err)
	}
	r.owed = newOwed(r.opts.Dir) // of the next daemon
	if err := r.Adopt(); err != nil {
		t.Fatal(err)
	}
	untold("all")
	untold("lab")

	asked := make(chan string, 1)
	back := cluster.New("c")
	cluster.Serve(back, "clear", func(_ context.Context, _ string, o clearOrder, _ func(none)) (none, error) {
		asked <- o.Namespace
		return none{}, nil
	})
	back.Join(hub.Join("c"))
	if err := r.ClearEverywhere(t.Context(), "lab"); err != nil || <-asked != "lab" {
		t.Errorf("c is back: %v", err)
	}
	hub.Kill("c")
	if err := r.ClearEverywhere(t.Context(), "lab"); err != nil {
		t.Errorf("c has been told: %v", err)
	}
	if _, err := os.Lstat(r.opts.Dir); err == nil {
		t.Error("the file is left")
	}

	ns, err := r.Get("gone")
	if err == nil {
		err = errors.Join(r.owed.add(map[string]debt{"gone": {Hosts: []string{"c", "x"}}}), ns.DelHosts("c"))
	}
	if got := r.owed.to("gone").Hosts; err != nil || !slices.Equal(got, []string{"x"}) {
		t.Errorf("after del-hosts: %q, %v", got, err)
	}
}

// A bridge that could not be parted from that of a host which was away is parted
// when the host is told that the namespace has ended; and what fails on this host
// keeps nobody from being told.
func TestClearPartsBridgesLater(t *testing.T) {
	r, hub := among(t, "")
	told := make(chan clearOrder, 8)
	join := func(host string) {
		c := cluster.New(host)
		cluster.Serve(c, "tunnels", func(context.Context, string, tunnelOrder, func(none)) (tunneled, error) { return tunneled{}, nil })
		cluster.Serve(c, "clear", func(_ context.Context, _ string, o clearOrder, _ func(none)) (none, error) {
			told <- o
			return none{}, nil
		})
		c.Join(hub.Join(host))
	}
	join("b")
	join("c")
	ns, err := r.Get("lab")
	if err == nil {
		err = ns.AddBridge(t.Context(), "wire", "vxlan")
	}
	if err != nil {
		t.Fatal(err)
	}
	hub.Kill("c")
	broken := errors.New("broken here")
	r.opts.Clean = append(r.opts.Clean, func(context.Context, string) error { return broken })
	r.opts.Tunnels = func(context.Context, string, string, uint32, []string) (bool, error) { return false, nil }
	if err := r.ClearEverywhere(t.Context(), "lab"); !errors.Is(err, broken) || strings.Count(err.Error(), "host c: ") != 1 {
		t.Errorf("without c: %v", err)
	}
	<-told // b
	r.opts.Clean = nil
	join("c")
	if err := r.ClearEverywhere(t.Context(), "lab"); err != nil {
		t.Error(err)
	}
	for range 2 {
		o := <-told
		if len(o.Bridges) != 1 || o.Bridges[0].Bridge != "wire" || o.Bridges[0].Tunnels.Kind != "vxlan" || o.Bridges[0].Tunnels.Key == 0 || len(o.Bridges[0].Tunnels.Hosts) > 0 {
			t.Errorf("told %+v", o)
		}
	}
	// What a host that is told does.
	var parted []string
	r.opts.Tunnels = func(_ context.Context, bridge, _ string, key uint32, hosts []string) (bool, error) {
		parted = append(parted, fmt.Sprint(bridge, key, hosts))
		return false, nil
	}
	if err := r.clearHere(t.Context(), clearOrder{"none", []tunnelOrder{{Bridge: "wire", Tunnels: tunnels{"gre", 7, []string{"b"}}, Destroy: true}}}); err != nil || !slices.Equal(parted, []string{"wire7 []"}) {
		t.Errorf("parted %q, %v", parted, err)
	}
}

// Of two nodes of one name neither gets VMs, and a launch that the other hosts
// have done has worked.
func TestLaunchBesideTwins(t *testing.T) {
	r, _ := among(t, "b")
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "v[1-3]", "", nil); err != nil {
		t.Error(err)
	}
	if err := ns.Edit(func(c *vm.Config) error { c.Schedule = "b"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "v4", "", nil); !errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), meshage.ErrAmbiguous.Error()) {
		t.Errorf("a VM for one of two hosts of a name: %v", err)
	}
}

// A host that tells nonsense of itself gets no VMs, and keeps no others from
// getting them.
func TestLaunchBesideNonsense(t *testing.T) {
	r, hub := among(t, "")
	c := cluster.New("c")
	cluster.Serve(c, "survey", func(context.Context, string, surveyQuery, func(none)) (surveyReport, error) {
		return surveyReport{Facts: host.Facts{CPUs: -1, MemTotal: 1 << 62, Limit: -1}}, nil
	})
	cluster.Serve(c, "launch", func(_ context.Context, _ string, o launchOrder, _ func(launched)) (none, error) {
		if o.count() > 0 {
			t.Errorf("c gets %d VMs", o.count())
		}
		return none{}, nil
	})
	c.Join(hub.Join("c"))
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "v[1-3]", "", nil); err != nil {
		t.Error(err)
	}
	if err := ns.Edit(func(c *vm.Config) error { c.Schedule = "c"; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "v4", "", nil); err == nil || !strings.Contains(err.Error(), "`c` tells impossible figures") {
		t.Errorf("a VM for c: %v", err)
	}
}

// What `ns bridge` did where it could is undone when it fails on one host, and
// so are the bridges that it made, but no others.
func TestBridgeLeavesNothing(t *testing.T) {
	r, hub := among(t, "")
	orders := make(chan string, 16)
	ask := func(host string, made bool, fails error) func(context.Context, string, tunnelOrder, func(none)) (tunneled, error) {
		return func(_ context.Context, _ string, o tunnelOrder, _ func(none)) (tunneled, error) {
			orders <- fmt.Sprintf("%s %d %v", host, len(o.Tunnels.Hosts), o.Destroy)
			if len(o.Tunnels.Hosts) == 0 {
				return tunneled{}, nil
			}
			return tunneled{made}, fails
		}
	}
	for host, f := range map[string]func(context.Context, string, tunnelOrder, func(none)) (tunneled, error){
		"b": ask("b", true, nil), "c": ask("c", false, nil), "d": ask("d", false, errs.New(errs.Unsupported, "no GRE here")),
	} {
		c := cluster.New(host)
		cluster.Serve(c, "tunnels", f)
		c.Join(hub.Join(host))
	}
	r.opts.Tunnels = func(_ context.Context, _, _ string, _ uint32, hosts []string) (bool, error) {
		orders <- fmt.Sprintf("h %d", len(hosts))
		return len(hosts) > 0, nil
	}
	r.opts.DestroyBridge = func(_ context.Context, bridge string) error { orders <- "h destroys " + bridge; return nil }
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.AddHosts("localhost,b,c,d"); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddBridge(t.Context(), "wire", "gre"); !errors.Is(err, errs.Unsupported) || cluster.HostOf(err) != "d" {
		t.Errorf("%v", err)
	}
	close(orders)
	var got []string
	for o := range orders {
		got = append(got, o)
	}
	slices.Sort(got)
	want := []string{"b 0 true", "b 4 false", "c 0 false", "c 4 false", "d 0 false", "d 4 false", "h 0", "h 4", "h destroys wire"}
	if !slices.Equal(got, want) {
		t.Errorf("orders: %q", got)
	}
	if got := ns.connected(); len(got) != 0 {
		t.Errorf("connected: %q", got)
	}
}

// A bridge is parted from those of all hosts, or counts as connected; a host
// that is gone for good is taken out.
func TestDelBridgeUntilDone(t *testing.T) {
	r, hub := among(t, "")
	asked := make(chan string, 8)
	for _, host := range []string{"b", "c"} {
		c := cluster.New(host)
		cluster.Serve(c, "tunnels", func(_ context.Context, _ string, o tunnelOrder, _ func(none)) (tunneled, error) {
			if len(o.Tunnels.Hosts) == 0 {
				asked <- host
			}
			return tunneled{}, nil
		})
		c.Join(hub.Join(host))
	}
	ns, err := r.Get("lab")
	if err == nil {
		err = ns.AddBridge(t.Context(), "wire", "vxlan")
	}
	if err != nil {
		t.Fatal(err)
	}
	hub.Kill("c")
	for range 2 {
		if err := ns.DelBridge(t.Context(), "wire"); !errors.Is(err, errs.Unreachable) || cluster.HostOf(err) != "c" || <-asked != "b" {
			t.Errorf("without c: %v", err)
		}
	}
	if err := ns.DelHosts("c"); err != nil {
		t.Fatal(err)
	}
	if err := ns.DelBridge(t.Context(), "wire"); err != nil || <-asked != "b" {
		t.Errorf("c is out: %v", err)
	}
	if err := ns.DelBridge(t.Context(), "wire"); !errors.Is(err, errs.NotFound) {
		t.Errorf("once more: %v", err)
	}
}
