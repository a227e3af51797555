package namespace

import (
	"context"
	"errors"
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
