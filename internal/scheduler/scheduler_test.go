package scheduler

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"minimega/internal/errs"
)

func hosts(n int) []Host {
	hs := make([]Host, n)
	for i := range hs {
		hs[i] = Host{Name: fmt.Sprintf("h%d", i), CPUs: 4, MemMB: 8192, Limit: -1}
	}
	return hs
}

func small(names ...string) Group {
	return Group{Names: names, VCPUs: 1, MemMB: 512, Coschedule: -1}
}

// placed writes a result as `vm@host vm@host`.
func placed(p *Problem, r *Result) string {
	var out []string
	for i := range p.Groups {
		for j := range p.Groups[i].Len() {
			out = append(out, p.Groups[i].name(j)+"@"+r.HostOf(i, j))
		}
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	with := func(g Group, change func(*Group)) Group { change(&g); return g }
	for name, c := range map[string]struct {
		change func(*Problem)
		groups []Group
		want   string
	}{
		"one host": {func(p *Problem) { p.Hosts = hosts(1) }, []Group{small("a", "b"), small("c")}, "a@h0 b@h0 c@h0"},
		"spread":   {nil, []Group{small("a", "b", "c", "d")}, "a@h0 b@h1 c@h2 d@h0"},
		"unnamed":  {nil, []Group{{Count: 2, VCPUs: 1, Coschedule: -1}}, "@h0 @h1"},
		"least loaded first": {func(p *Problem) { p.Hosts[0].CPUCommit, p.Hosts[1].CPUCommit = 3, 1 },
			[]Group{small("a", "b", "c", "d")}, "a@h2 b@h1 c@h2 d@h1"},
		"by processors": {func(p *Problem) { p.Hosts[1].CPUs = 1; p.Hosts[0].CPUs = 1; p.Hosts[2].CPUs = 100 },
			[]Group{small("a", "b", "c", "d", "e")}, "a@h0 b@h1 c@h2 d@h2 e@h2"},
		"by memory": {func(p *Problem) { p.Metric = MemCommit; p.Hosts[0].MemCommit, p.Hosts[2].MemCommit = 4096, 4096 },
			[]Group{small("a", "b")}, "a@h1 b@h1"},
		"by interfaces": {func(p *Problem) { p.Metric = NetCommit; p.Hosts[0].NetCommit = 3 },
			[]Group{{Names: []string{"a", "b", "c"}, NICs: 2, Coschedule: -1}}, "a@h1 b@h2 c@h1"},
		"full hosts last": {func(p *Problem) { p.Hosts[0].MemCommit = 8000; p.Hosts[1].CPUCommit = 2; p.Hosts[2].CPUCommit = 3 },
			[]Group{small("a")}, "a@h1"},
		"a full host rather than none": {func(p *Problem) {
			for i := range p.Hosts {
				p.Hosts[i].MemCommit = 8000
			}
			p.Hosts[0].CPUCommit = 1
		}, []Group{small("a")}, "a@h1"},
		"limit of the host": {func(p *Problem) { p.Hosts[0].Limit, p.Hosts[1].Limit = 0, 1 }, []Group{small("a", "b", "c")}, "a@h1 b@h2 c@h2"},
		"down":              {func(p *Problem) { p.Hosts[0].Down = "timed out" }, []Group{small("a")}, "a@h1"},
		"scheduled":         {nil, []Group{small("a"), with(small("b"), func(g *Group) { g.Host = "h0" })}, "a@h1 b@h0"},
		"localhost":         {func(p *Problem) { p.Local = "h2" }, []Group{with(small("a", "b"), func(g *Group) { g.Host = "localhost" })}, "a@h2 b@h2"},
		"larger group first": {nil, []Group{small("a"), with(small("b", "c"), func(g *Group) { g.VCPUs = 2 })},
			"a@h2 b@h0 c@h1"},
		"lower coschedule first": {nil, []Group{small("a", "b"), with(small("c"), func(g *Group) { g.Coschedule = 1 }), with(small("d"), func(g *Group) { g.Coschedule = 0 })},
			"a@h2 b@h1 c@h1 d@h0"},
		"coschedule of those there": {func(p *Problem) { p.Hosts[0].Tolerates = 1; p.Hosts[0].VMs = 1; p.Hosts[1].CPUCommit = 3 },
			[]Group{small("a", "b", "c")}, "a@h2 b@h2 c@h2"},
		"colocate": {nil, []Group{small("a", "b"), with(small("c", "d"), func(g *Group) { g.Colocate = "b" })},
			"a@h1 b@h0 c@h0 d@h0"},
		"chain": {nil, []Group{with(small("c"), func(g *Group) { g.Colocate = "b" }), with(small("b"), func(g *Group) { g.Colocate = "a" }), small("x", "a")},
			"c@h0 b@h0 x@h1 a@h0"},
		"colocate existing": {func(p *Problem) { p.Existing = map[string]string{"old": "h2"} },
			[]Group{with(small("b"), func(g *Group) { g.Colocate = "a" }), with(small("a"), func(g *Group) { g.Colocate = "old" }), small("c")},
			"b@h2 a@h2 c@h0"},
		"bundle fits as one": {func(p *Problem) {
			p.Hosts[0].MemCommit = 8192 - 600
			p.Hosts[1].CPUCommit = 1
			p.Hosts[2].CPUCommit = 2
		},
			[]Group{small("a"), with(small("b"), func(g *Group) { g.Colocate = "a" })}, "a@h1 b@h1"},
		"more followed first": {nil, []Group{small("x", "y"), small("a"), with(small("b"), func(g *Group) { g.Colocate = "a" })},
			"x@h1 y@h2 a@h0 b@h0"},
		"empty":       {nil, nil, ""},
		"empty group": {nil, []Group{{Coschedule: -1}, small("a")}, "a@h0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Problem{Hosts: hosts(3), Groups: c.groups, Local: "h0"}
			if c.change != nil {
				c.change(p)
			}
			r, err := Plan(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := placed(p, r); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		change func(*Problem)
		kind   errs.Kind
		want   string
	}{
		{func(p *Problem) { p.Hosts = nil }, errs.State, "namespace must contain at least one host to launch VMs (`ns add-hosts localhost`)"},
		{func(p *Problem) { p.Hosts[1].Name = "h0" }, errs.Invalid, "host `h0` is given twice"},
		{func(p *Problem) { p.Hosts[1].CPUs = -1 }, errs.Invalid, "host `h1` tells impossible figures: {Name:h1 CPUs:-1 MemMB:8192 CPUCommit:0 MemCommit:0 NetCommit:0 VMs:0 Limit:-1 Tolerates:0 Down:}"},
		{func(p *Problem) { p.Metric = "x" }, errs.Invalid, "invalid load metric: `x`"},
		{func(p *Problem) { p.Groups[0].Host = "x" }, errs.NotFound, "VM scheduled on unknown host: `x`"},
		{func(p *Problem) { p.Groups[0].Host, p.Local = "localhost", "me" }, errs.NotFound, "VM scheduled on unknown host: `me`"},
		{func(p *Problem) { p.Groups[0].Host = "h1"; p.Hosts[1].Down = "timed out" }, errs.Unreachable, "VM scheduled on host `h1`, which can have none: timed out"},
		{func(p *Problem) { p.Hosts[0].Down, p.Hosts[1].Down = "timed out", "refused" }, errs.Unreachable, "no host of the namespace can have VMs: h0 (timed out), h1 (refused)"},
		{func(p *Problem) { p.Groups[0].Host, p.Groups[0].Colocate = "h0", "b" }, errs.Invalid, "VM a: cannot specify schedule and colocate in the same config"},
		{func(p *Problem) { p.Groups[0].Colocate, p.Groups[1].Colocate = "y", "x" }, errs.NotFound, "nonexistent colocate VMs: [x, y]"},
		{func(p *Problem) { p.Groups[0].Colocate = "old"; p.Existing = map[string]string{"old": "gone"} }, errs.NotFound, "VM scheduled on unknown host: `gone`"},
		{func(p *Problem) { p.Groups[0].Colocate, p.Groups[1].Colocate = "c", "a" }, errs.Invalid, "colocate goes round in a circle: c -> a -> c (one of these VMs must do without colocate)"},
		{func(p *Problem) { p.Groups[0].Colocate = "a" }, errs.Invalid, "colocate goes round in a circle: a -> a (one of these VMs must do without colocate)"},
		{func(p *Problem) { p.Groups[0].Coschedule, p.Groups[0].Host = 0, "h1" }, errs.Resource, "too many VMs scheduled on h1 for coschedule requirement of 0"},
		{func(p *Problem) { p.Groups[0].Coschedule, p.Groups[1].Coschedule = 0, 0 }, errs.Resource, "too many VMs scheduled on h0 for coschedule requirement of 0"},
		{func(p *Problem) { p.Hosts[0].VMs, p.Hosts[1].VMs, p.Groups[0].Coschedule = 3, 2, 1 }, errs.Resource, "too many VMs scheduled on h1 for coschedule requirement of 1"},
		{func(p *Problem) { p.Groups[1].Colocate, p.Groups[1].Coschedule = "a", 1 }, errs.Resource, "too many VMs scheduled on h0 for coschedule requirement of 1"},
		{func(p *Problem) { p.Groups[1].MemMB = -1 }, errs.Invalid, "VM c: no VM can have 1 CPUs, -1 MB of memory and 0 interfaces"},
		{func(p *Problem) { p.Groups[1].Names, p.Groups[1].Count = nil, maxVMs }, errs.Invalid, "more than 4194304 VMs to schedule"},
		{func(p *Problem) { p.Limits.Memory, p.Hosts[1].MemCommit, p.Groups[0].MemMB = 1, 6144, 8192 }, errs.Resource,
			"VM b: needs 8192 MB; the most free is 2048 MB on host h1 (reduce memory, add a host, or `ns limit memory 1.82`)"},
		{func(p *Problem) { p.Limits.Memory, p.Groups[0].MemMB, p.Groups[0].Host = 1, 8192, "h1" }, errs.Resource,
			"VM b: needs 8192 MB; the most free is 0 MB on host h1 (reduce memory, schedule it elsewhere, or `ns limit memory 2`)"},
		{func(p *Problem) { p.Limits.CPU, p.Groups[0].VCPUs = 1.5, 6 }, errs.Resource,
			"VM c: needs 1 CPU; the most free is 0 CPUs on host h0 (reduce vcpus, add a host, or `ns limit cpu 1.75`)"},
		{func(p *Problem) { p.Limits.VMs = 1 }, errs.Resource,
			"VM c: needs a place; the most free is 0 on host h0 (launch fewer, add a host, or `ns limit vms 2`)"},
		{func(p *Problem) { p.Hosts[0].Limit, p.Hosts[1].Limit = 1, 1 }, errs.Resource,
			"VM c: needs a place; the most free is 0 on host h0 (launch fewer, add a host)"},
		{func(p *Problem) { p.Limits.VMs, p.Groups[1].Colocate = 2, "a" }, errs.Resource,
			"VM a: needs 3 places with the 2 VMs colocated with it; the most free is 2 on host h0 (launch fewer, add a host, or `ns limit vms 3`)"},
		{func(p *Problem) { p.Limits.Memory, p.Hosts[0].MemMB, p.Hosts[1].MemMB = 1, 0, 0 }, errs.Resource,
			"VM a: needs 512 MB; the most free is 0 MB on host h0 (reduce memory, add a host, or raise `ns limit memory`)"},
		{func(p *Problem) { p.Limits, p.Hosts = Limits{0.01, 0.01, 0}, p.Hosts[:1] }, errs.Resource,
			"VM a: fits on none of 1 host; h0 has 81 of 512 MB, 0 of 1 CPUs (add a host, or see `ns limit`)"},
	} {
		p := &Problem{Hosts: hosts(2), Groups: []Group{small("a", "b"), {Names: []string{"c", "d"}, VCPUs: 1, MemMB: 512, Coschedule: -1}}, Local: "h0"}
		c.change(p)
		_, err := Plan(p)
		if err == nil {
			t.Errorf("no error instead of %s", c.want)
			continue
		}
		if err.Error() != c.want || !errors.Is(err, c.kind) {
			t.Errorf("got  %v (%s)\nwant %s (%s)", err, errs.KindOf(err), c.want, c.kind)
		}
	}
}

func TestPrediction(t *testing.T) {
	p := &Problem{Hosts: hosts(2), Metric: MemCommit, Groups: []Group{
		{Names: []string{"a"}, VCPUs: 2, MemMB: 8000, NICs: 3, Coschedule: 5}, {Count: 2, VCPUs: 1, MemMB: 500, NICs: 1, Coschedule: -1}}}
	p.Hosts[0].VMs, p.Hosts[0].CPUCommit, p.Hosts[0].MemCommit, p.Hosts[0].NetCommit = 1, 1, 100, 1
	r, err := Plan(p)
	if err != nil {
		t.Fatal(err)
	}
	want := []Prediction{
		{Host{Name: "h0", CPUs: 4, MemMB: 8192, CPUCommit: 3, MemCommit: 1100, NetCommit: 3, VMs: 3, Limit: -1}, 2},
		{Host{Name: "h1", CPUs: 4, MemMB: 8192, CPUCommit: 2, MemCommit: 8000, NetCommit: 3, VMs: 1, Limit: -1, Tolerates: 6}, 1},
	}
	for i := range want {
		if r.Hosts[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", r.Hosts[i], want[i])
		}
	}
	if len(r.Warnings) > 0 {
		t.Errorf("warnings %q", r.Warnings)
	}
	for m, load := range map[Metric]float64{CPUCommit: 0.5, MemCommit: 8000. / 8192, NetCommit: 3} {
		if got := r.Hosts[1].Load(m); got != load {
			t.Errorf("%s: got %v, want %v", m, got, load)
		}
	}
}

func TestWarnings(t *testing.T) {
	p := &Problem{Hosts: hosts(5), Groups: []Group{{Count: 4, MemMB: 9000, VCPUs: 1, Coschedule: -1}}}
	p.Hosts[4].MemCommit, p.Hosts[4].CPUCommit = 1e6, 1e6 // was so before
	r, err := Plan(p)
	if err != nil {
		t.Fatal(err)
	}
	want := "VMs may get more memory than there is on 4 of 5 hosts: h0 (9000 of 8192 MB), h1 (9000 of 8192 MB), h2 (9000 of 8192 MB) and 1 more; `ns limit memory 1` refuses that"
	if len(r.Warnings) != 1 || r.Warnings[0] != want {
		t.Errorf("got  %q\nwant %q", r.Warnings, want)
	}
	p.Limits.Memory = 2
	if r, err = Plan(p); err != nil || len(r.Warnings) > 0 {
		t.Errorf("with a limit: %v, %v", r, err)
	}
}

func TestOutside(t *testing.T) {
	groups := []Group{small("a"), {Names: []string{"b"}, Colocate: "a"}, {Count: 2, Colocate: "z"}, {Count: 2, Colocate: "y"}, {Count: 1, Colocate: "z"}}
	if got := fmt.Sprint(Outside(groups)); got != "[y z]" {
		t.Errorf("got %s", got)
	}
	if got := Outside([]Group{small("a")}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// A chain of many groups is walked once.
func TestLongChain(t *testing.T) {
	const n = 100_000
	p := &Problem{Hosts: hosts(2), Groups: make([]Group, n)}
	for i := range p.Groups {
		p.Groups[i] = small(fmt.Sprint("vm", i))
		if i > 0 {
			p.Groups[i].Colocate = fmt.Sprint("vm", i-1)
		}
	}
	r, err := Plan(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Hosts[0].New != n || r.HostOf(n-1, 0) != "h0" {
		t.Errorf("got %+v", r.Hosts)
	}
	p.Groups[0].Colocate = fmt.Sprint("vm", n-1)
	if _, err := Plan(p); err == nil || len(err.Error()) > 300 {
		t.Errorf("cycle: %v", err)
	}
}

// What Plan decided passes Check, and moves are checked like anything else.
func TestCheck(t *testing.T) {
	p := &Problem{Hosts: hosts(3), Groups: []Group{small("a", "b"), {Names: []string{"c"}, MemMB: 8192, VCPUs: 1, Coschedule: 1}}}
	p.Hosts[2].Down = "timed out"
	p.Limits.Memory = 1
	r, err := Plan(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Check(p, r.Places)
	if err != nil || !reflect.DeepEqual(r, again) {
		t.Fatalf("got  %+v, %v\nwant %+v", again, err, r)
	}
	p.Groups[0].Host, p.Groups[1].Colocate = "h1", "x" // do not count
	for _, c := range []struct {
		places [][]int32
		want   string
	}{
		{[][]int32{{1, 1}, {0}}, ""},
		{[][]int32{{1, 0}, {0}}, "VM c: needs 8192 MB; the most free is 7680 MB on host h0 (reduce memory, schedule it elsewhere, or `ns limit memory 1.07`)"},
		{[][]int32{{1, 0}, {2}}, "VM scheduled on host `h2`, which can have none: timed out"},
		{[][]int32{{1, 0}, {3}}, "VM `c` has host 3 of 3"},
		{[][]int32{{1, 0}, {-1}}, "VM `c` has host -1 of 3"},
		{[][]int32{{1, 0}, {}}, "0 VMs of group 1 have places, of 1"},
		{[][]int32{{1, 0}}, "1 groups have places, of 2"},
	} {
		r, err := Check(p, c.places)
		if got := fmt.Sprint(err); err != nil && got != c.want || err == nil && c.want != "" {
			t.Errorf("%v: got  %v\nwant %s", c.places, err, c.want)
		}
		if err == nil && (r.Hosts[0].New != 1 || r.Hosts[1].CPUCommit != 2 || r.Hosts[0].Tolerates != 2) {
			t.Errorf("%v: %+v", c.places, r.Hosts)
		}
	}
	p.Limits.Memory = 0
	if _, err := Check(p, [][]int32{{0, 0}, {0}}); fmt.Sprint(err) != "too many VMs scheduled on h0 for coschedule requirement of 1" {
		t.Errorf("crowded: %v", err)
	}
	p.Groups[1].VCPUs = -1
	if _, err := Check(p, r.Places); !errors.Is(err, errs.Invalid) {
		t.Errorf("negative: %v", err)
	}
	p.Hosts = nil
	if _, err := Check(p, r.Places); !errors.Is(err, errs.State) {
		t.Errorf("without hosts: %v", err)
	}
}
