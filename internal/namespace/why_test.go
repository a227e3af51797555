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
	"minimega/internal/vm"
)

// told writes what is said, a line for each VM and each finding.
func told(answers []HostWhy) string {
	var b strings.Builder
	for _, a := range answers {
		if a.Err != nil {
			fmt.Fprintf(&b, "%s: %v\n", a.Host, a.Err)
		}
		for _, w := range a.VMs {
			fmt.Fprintf(&b, "%s: %s %d %s\n", a.Host, w.Name, w.VMs, w.State)
			if w.Failure != nil {
				fmt.Fprintf(&b, "  failure: %s\n", w.Failure.Text)
			}
			for _, f := range w.Findings {
				fmt.Fprintf(&b, "  %s: %s (%s)\n", f.About, f.Text, f.Remedy)
			}
		}
	}
	return b.String()
}

// asked asks about a VM and wants these texts in the answer, and nothing of those
// that begin with a `!`.
func asked(t *testing.T, n *Namespace, name string, want ...string) {
	t.Helper()
	answers, err := n.Why(t.Context(), name, false)
	if err != nil {
		t.Errorf("why %q: %v", name, err)
	}
	text := told(answers)
	for _, w := range want {
		not := strings.HasPrefix(w, "!")
		if strings.Contains(text, strings.TrimPrefix(w, "!")) == not {
			t.Errorf("why %q: want %q in\n%s", name, w, text)
		}
	}
}

// lab is a namespace of this host, b and c.
func lab(t *testing.T, r *Registry) *Namespace {
	t.Helper()
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.AddHosts("localhost"); err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestWhyQueued(t *testing.T) {
	r, hub := among(t, "")
	ns := lab(t, r)
	ns.SetQueueing(true)
	launch := func(what string, memory uint64) {
		t.Helper()
		err := errors.Join(ns.Edit(func(c *vm.Config) error { c.Memory = memory; return nil }), ns.Launch(t.Context(), vm.KVM, what, "", nil))
		if err != nil {
			t.Fatal(err)
		}
	}
	asked(t, ns, "", "!QUEUED")
	launch("3", 100)
	launch("web[1-2]", 10)
	asked(t, ns, "", "h: vm-[0-2] 3 QUEUED", "h: web[1-2] 2 QUEUED", "placement: it would be launched on b (1), c (1), h (1)")
	asked(t, ns, "vm-1", "vm-1 1 QUEUED", "it has none until it is launched", "placement: it would be launched on c", "!web")
	asked(t, ns, "web2", "web2 1 QUEUED", "!it has none", "!vm-")
	if _, err := ns.Why(t.Context(), "vm-3", false); !errors.Is(err, errs.NotFound) || err.Error() != "vm not found: vm-3" {
		t.Errorf("a VM that will not be: %v", err)
	}

	// What refuses it, on which host, and what would be without the others.
	if err := ns.SetLimit("memory", "0.05"); err != nil {
		t.Fatal(err)
	}
	hub.Kill("c")
	asked(t, ns, "vm-1", "all that waits is launched together, which is refused: VM vm-0: needs 100 MB", "nor would it have a place alone: VM vm-1: needs 100 MB",
		"host b: it wants 100 MB, and of the 51 that `ns limit memory 0.05` allows 51 are free (raise `ns limit memory`",
		"host c: the host is not in the mesh", "host h: it wants 100 MB")
	asked(t, ns, "web1", "which is refused: VM vm-0: ", "alone it would be launched on b", "!host b: ")
	if err := ns.LaunchQueue(t.Context(), nil); err == nil {
		t.Fatal("launched beyond the limit")
	}
	asked(t, ns, "web1", "failure: ", "needs 100 MB")

	// Decided by hand, and launched in the end under the names that were told.
	if err := ns.SetLimit("memory", "none"); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ns.Move("web2", "h"); err != nil {
		t.Fatal(err)
	}
	asked(t, ns, "web2", "placement: `ns schedule` has put it on h (`ns schedule mv` moves it)", "launch: ")
	if err := ns.Move("web2", "b"); err != nil {
		t.Fatal(err)
	}
	asked(t, ns, "web2", "has put it on b", "!launch: ") // that is for b to say
	ns.FlushQueue()
	asked(t, ns, "", "!QUEUED", "!failure")
}

// The names that are told are those that the VMs get.
func TestWhyNames(t *testing.T) {
	ns, err := newTestRegistry(t).Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "vm-[1,3]", "", nil); err != nil {
		t.Fatal(err)
	}
	ns.SetQueueing(true)
	for _, what := range []string{"2", "vm-4", "1"} {
		if err := ns.Launch(t.Context(), vm.KVM, what, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	answers, err := ns.Why(t.Context(), "", false)
	if err != nil || len(answers) != 1 {
		t.Fatalf("%+v, %v", answers, err)
	}
	var got []string
	for _, w := range answers[0].VMs {
		if w.State == Queued {
			got = append(got, w.Name)
		}
	}
	if !slices.Equal(got, []string{"vm-[0,2]", "vm-4", "vm-5"}) {
		t.Errorf("told %q", got)
	}
	if err := ns.LaunchQueue(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if !ns.has(fmt.Sprintf("vm-%d", i)) {
			t.Errorf("there is no vm-%d", i)
		}
	}
}

// The VMs of other hosts are explained, and a host that cannot be asked is named.
func TestWhyElsewhere(t *testing.T) {
	r, hub := among(t, "")
	ns := lab(t, r)
	hub.Kill("b")
	b := cluster.New("b")
	cluster.Serve(b, "why", func(_ context.Context, _ string, q whyQuery, _ func(none)) ([]vm.Why, error) {
		if q.VM != "" && q.VM != "far" {
			return nil, errs.New(errs.NotFound, "vm not found: %s", q.VM)
		}
		return []vm.Why{{Name: "far", VMs: 1, Host: "b", State: "PAUSED"}}, nil
	})
	b.Join(hub.Join("b"))
	hub.Kill("c")
	asked(t, ns, "", "b: far 1 PAUSED", "c: the host")
	asked(t, ns, "far", "b: far 1 PAUSED")
	answers, err := ns.Why(t.Context(), "nobody", false)
	if !errors.Is(err, errs.NotFound) || len(answers) != 1 || answers[0].Host != "c" || !errors.Is(answers[0].Err, errs.Unreachable) {
		t.Errorf("nobody: %v, %v", answers, err)
	}
	answers, err = ns.Why(t.Context(), "", true)
	if err != nil || len(answers) != 1 || answers[0].Host != "h" {
		t.Errorf("only here: %+v, %v", answers, err)
	}
}

// What was refused is remembered with each VM's own reason, until it is launched,
// and never without end.
func TestRefused(t *testing.T) {
	r := newTestRegistry(t)
	ns, err := r.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	ns.note([]string{"a", "b", "c"}, errs.Join(errs.InVM(errs.AtStep(errs.New(errs.Resource, "no room"), "taps"), "b"), errs.InVM(errors.New("odd"), "x")))
	asked(t, ns, "b", "b 1 ", "failure: VM b: taps: no room")
	asked(t, ns, "a", "a 1 ", "failure: VM b: taps: no room", "!b 1")
	asked(t, ns, "", "h: b 1 ", "h: a,c 2 ")
	if w := ns.whyRefused("b", ns.has); len(w) != 1 || w[0].Failure.Step != "taps" || w[0].Failure.Kind != errs.Resource || w[0].When.IsZero() {
		t.Errorf("%+v", w)
	}
	if err := ns.Launch(t.Context(), vm.KVM, "a", "", nil); err != nil {
		t.Fatal(err)
	}
	asked(t, ns, "", "h: c 1 ", "h: a 1 BUILDING", "!odd")

	// Names there are none of yet.
	ns.note(make([]string, 4), errors.New("full"))
	asked(t, ns, "", "h:  4 ", "failure: full")
	if err := ns.Launch(t.Context(), vm.KVM, "1", "", nil); err != nil {
		t.Fatal(err)
	}
	asked(t, ns, "", "!full", "h: c 1 ")

	many := make([]string, 3*maxNames)
	for i := range many {
		many[i] = fmt.Sprintf("m%d", i)
	}
	for range 2 * maxRefused {
		ns.note(many, errors.New("too many"))
		many[0] += "x"
	}
	ns.mu.Lock()
	held := 0
	for _, r := range ns.refused {
		held += len(r.names)
	}
	if len(ns.refused) > maxRefused || held > maxRefused*maxNames {
		t.Errorf("%d launches with %d names are remembered", len(ns.refused), held)
	}
	ns.mu.Unlock()
	r.ForgetRefused("lab")
	r.ForgetRefused("nowhere")
	asked(t, ns, "", "!failure")
}

// Whatever refuses a launch is remembered: before it waits, when it is placed,
// and on the host that is to launch it.
func TestRefusedEverywhere(t *testing.T) {
	r, hub := among(t, "")
	ns := lab(t, r)
	r.opts.Files = t.TempDir()
	r.opts.Fetch = func(context.Context, string) error { return errs.New(errs.Resource, "disk full") }
	launch := func(what string, edit func(c *vm.Config)) {
		t.Helper()
		if err := ns.Edit(func(c *vm.Config) error { *c = *vm.NewConfig(); edit(c); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := ns.Launch(t.Context(), vm.KVM, what, "", nil); err == nil {
			t.Fatalf("%s was launched", what)
		}
	}
	launch("uuid[1-2]", func(c *vm.Config) { c.UUID = "11111111-1111-4111-8111-111111111111" })
	launch("nowhere", func(c *vm.Config) { c.Schedule = "mars" })
	launch("unfetched", func(c *vm.Config) { c.Schedule = "h"; c.KernelPath = filepath.Join(r.opts.Files, "kernel") })
	hub.Kill("c")
	c := cluster.New("c") // it can be asked, but is lost when it is to launch
	cluster.Serve(c, "survey", func(context.Context, string, surveyQuery, func(none)) (surveyReport, error) {
		return surveyReport{Facts: r.opts.Facts()}, nil
	})
	cluster.Serve(c, "launch", func(context.Context, string, launchOrder, func(launched)) (none, error) {
		hub.Kill("c")
		return none{}, errs.New(errs.Unreachable, "going")
	})
	c.Join(hub.Join("c"))
	launch("lost", func(c *vm.Config) { c.Schedule = "c" })
	asked(t, ns, "uuid2", "failure: cannot launch multiple VMs")
	asked(t, ns, "nowhere", "failure: VM scheduled on unknown host: `mars`")
	asked(t, ns, "unfetched", "failure: fetch kernel: disk full")
	asked(t, ns, "lost", "failure: host c: ")
	if _, err := os.Stat(filepath.Join(r.opts.Files, "kernel")); err == nil {
		t.Error("fetched")
	}
}
