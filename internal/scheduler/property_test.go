package scheduler

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"minimega/internal/errs"
)

// drawProblem makes problems of a few hosts and groups, often too tight.
func drawProblem(t *rapid.T) *Problem {
	p := &Problem{
		Local: "h0", Existing: map[string]string{"old": "h0"},
		Metric: rapid.SampledFrom([]Metric{"", CPUCommit, MemCommit, NetCommit}).Draw(t, "metric"),
		Limits: Limits{CPU: rapid.SampledFrom([]float64{0, 0, 1, 2.5}).Draw(t, "cpu"),
			Memory: rapid.SampledFrom([]float64{0, 0, 0.9, 1, 3}).Draw(t, "memory"), VMs: rapid.SampledFrom([]int{0, 0, 3, 10}).Draw(t, "vms")},
	}
	n := rapid.IntRange(1, 7).Draw(t, "hosts")
	small := func(name string, most int) int { return rapid.IntRange(0, most).Draw(t, name) }
	for i := range n {
		h := Host{Name: fmt.Sprint("h", i), CPUs: small("cpus", 8), MemMB: 1000 * small("gb", 8), CPUCommit: small("cpucommit", 6),
			MemCommit: 500 * small("memcommit", 8), NetCommit: small("netcommit", 3), VMs: small("vms", 3), Limit: small("limit", 12) - 1}
		if h.Limit < 4 {
			h.Limit = -1
		}
		h.Tolerates = max(0, small("tolerates", 20)-10)
		if small("down", 9) == 0 {
			h.Down = "timed out"
		}
		p.Hosts = append(p.Hosts, h)
	}
	for i := range small("groups", 8) {
		g := Group{VCPUs: small("vcpus", 3), MemMB: 250 * small("mem", 6), NICs: small("nics", 2), Coschedule: max(-1, small("coschedule", 16)-8)}
		for j := range small("size", 5) {
			g.Names = append(g.Names, fmt.Sprintf("v%d.%d", i, j))
		}
		switch small("place", 5) {
		case 0:
			g.Host = rapid.SampledFrom([]string{"localhost", fmt.Sprint("h", n-1)}).Draw(t, "host")
		case 1:
			g.Colocate = "old"
		case 2:
			g.Colocate = fmt.Sprintf("v%d.%d", small("with", 8), small("which", 2))
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// What was placed keeps every rule, and what was refused has a reason.
func TestRules(t *testing.T) {
	good := 0
	rapid.Check(t, func(t *rapid.T) {
		p := drawProblem(t)
		r, err := Plan(p)
		again, err2 := Plan(p)
		if !reflect.DeepEqual(r, again) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatal("another answer to the same question")
		}
		if err != nil {
			if errs.KindOf(err) == errs.Internal {
				t.Fatal(err)
			}
			checkRemedy(t, p, err)
			return
		}
		good++
		checkPlaces(t, p, r)
		checkLimits(t, p, r)
		if same, err := Check(p, r.Places); err != nil || !reflect.DeepEqual(same, r) {
			t.Fatalf("planned %+v, checked %+v, %v", r, same, err)
		}
	})
	if good == 0 {
		t.Fatal("no problem had an answer")
	}
}

// checkRemedy does what an error advises, which must help.
func checkRemedy(t *rapid.T, p *Problem, err error) {
	_, advice, ok := strings.Cut(errs.FactsOf(err).Remedy, "or `ns limit ")
	if !ok {
		return
	}
	what, value, ok := strings.Cut(strings.TrimSuffix(advice, "`"), " ")
	if !ok {
		return
	}
	q := *p
	if err := q.Limits.Set(what, value); err != nil {
		t.Fatal(err)
	}
	if _, again := Plan(&q); again != nil {
		t.Fatalf("%v\nafter that: %v", err, again)
	}
}

// checkPlaces compares the places with what groups ask for, and the
// predictions with the places.
func checkPlaces(t *rapid.T, p *Problem, r *Result) {
	where := map[string]string{"old": "h0"}
	sum := append([]Host(nil), p.Hosts...)
	count := make([]int, len(sum))
	for i := range p.Groups {
		for j := range p.Groups[i].Len() {
			g, h := &p.Groups[i], r.Places[i][j]
			where[g.Names[j]] = r.HostOf(i, j)
			count[h]++
			sum[h].VMs++
			sum[h].CPUCommit += g.VCPUs
			sum[h].MemCommit += g.MemMB
			sum[h].NetCommit += g.NICs
			if g.Host != "" && r.HostOf(i, j) != strings.Replace(g.Host, "localhost", "h0", 1) {
				t.Fatalf("%s is on %s, not on %s", g.Names[j], r.HostOf(i, j), g.Host)
			}
		}
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		for _, name := range g.Names {
			if g.Colocate != "" && where[name] != where[g.Colocate] {
				t.Fatalf("%s is on %s, %s on %s", name, where[name], g.Colocate, where[g.Colocate])
			}
		}
	}
	for i := range sum {
		got := r.Hosts[i]
		got.Tolerates, sum[i].Tolerates = 0, 0
		if got.Host != sum[i] || got.New != count[i] {
			t.Fatalf("predicted %+v, is %+v and %d", got, sum[i], count[i])
		}
	}
}

// checkLimits compares each host that got VMs with what it may have.
func checkLimits(t *rapid.T, p *Problem, r *Result) {
	tolerates := map[string]int{}
	for i := range p.Groups {
		for j := range p.Groups[i].Len() {
			if c := p.Groups[i].Coschedule; c >= 0 {
				h := r.HostOf(i, j)
				if old, ok := tolerates[h]; !ok || c+1 < old {
					tolerates[h] = c + 1
				}
			}
		}
	}
	for i := range r.Hosts {
		h, was := r.Hosts[i], p.Hosts[i]
		if h.New == 0 {
			continue
		}
		c, limited := tolerates[h.Name]
		switch {
		case h.Down != "":
			t.Fatalf("%s is down", h.Name)
		case limited && h.VMs > c, was.Tolerates > 0 && h.VMs > was.Tolerates:
			t.Fatalf("%s has %d VMs against a coschedule limit", h.Name, h.VMs)
		case h.Limit >= 0 && h.VMs > h.Limit, p.Limits.VMs > 0 && h.VMs > p.Limits.VMs:
			t.Fatalf("%s has %d VMs against a limit", h.Name, h.VMs)
		case p.Limits.CPU > 0 && h.CPUCommit > was.CPUCommit && float64(h.CPUCommit) > p.Limits.CPU*float64(h.CPUs)+1e-3:
			t.Fatalf("%s: %d CPUs", h.Name, h.CPUCommit)
		case p.Limits.Memory > 0 && h.MemCommit > was.MemCommit && float64(h.MemCommit) > p.Limits.Memory*float64(h.MemMB)+1e-3:
			t.Fatalf("%s: %d MB", h.Name, h.MemCommit)
		}
	}
	if warned := len(r.Warnings) > 0; warned != (p.Limits.Memory == 0 && overcommitted(p, r)) {
		t.Fatalf("warnings %q", r.Warnings)
	}
}

func overcommitted(p *Problem, r *Result) bool {
	for i := range r.Hosts {
		if r.Hosts[i].MemCommit > max(r.Hosts[i].MemMB, p.Hosts[i].MemCommit) {
			return true
		}
	}
	return false
}

// The queues find the host that a look at all hosts finds, for every VM.
func TestAsByHand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProblem(t)
		index, err := p.index()
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.bundles(index)
		if err != nil {
			return
		}
		r, err := p.plan()
		units, demands := p.units(b)
		s := newPlacer(p, b)
		for _, u := range units {
			for vm := range u.size {
				if _, leads := b.dragging[seat{u.group, vm}]; u.vm != vm && (u.vm >= 0 || leads) {
					continue
				}
				h := byHand(s, &u, &demands[u.class])
				var nf *noFit
				if h < 0 {
					if !errors.As(err, &nf) || nf.seat != (seat{u.group, vm}) {
						t.Fatalf("group %d, VM %d does not fit, but %v", u.group, vm, err)
					}
					return
				}
				s.hosts[h].take(&demands[u.class], p.Metric)
				if r != nil && int(r.Places[u.group][vm]) != h {
					t.Fatalf("group %d, VM %d: on %d instead of %d", u.group, vm, r.Places[u.group][vm], h)
				}
			}
		}
		if err != nil {
			t.Fatalf("all fits, but %v", err)
		}
	})
}

func byHand(s *placer, u *unit, d *demand) int {
	best, score := -1, [3]float64{math.Inf(1)}
	for i := range s.hosts {
		h := &s.hosts[i]
		if f := s.bundled.fixed[u.group]; !h.holds(d) || f >= 0 && f != int32(i) {
			continue
		}
		this := [3]float64{0, h.load, float64(h.vms)}
		if !h.has(d) {
			this[0] = 1
		}
		if this[0] < score[0] || this[0] == score[0] && (this[1] < score[1] || this[1] == score[1] && this[2] < score[2]) {
			best, score = i, this
		}
	}
	return best
}

// On equal hosts without limits no host has more load than another by more
// than the largest VM.
func TestBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &Problem{Metric: rapid.SampledFrom([]Metric{CPUCommit, MemCommit, NetCommit}).Draw(t, "metric")}
		for i := range rapid.IntRange(1, 30).Draw(t, "hosts") {
			p.Hosts = append(p.Hosts, Host{Name: fmt.Sprint("h", i), CPUs: 16, MemMB: 1 << 30, Limit: -1})
		}
		step := 0.0
		for range rapid.IntRange(0, 20).Draw(t, "groups") {
			g := Group{Count: rapid.IntRange(0, 50).Draw(t, "count"), VCPUs: rapid.IntRange(0, 8).Draw(t, "vcpus"),
				MemMB: rapid.IntRange(0, 9000).Draw(t, "mem"), NICs: rapid.IntRange(0, 4).Draw(t, "nics"), Coschedule: -1}
			one := Host{CPUs: 16, MemMB: 1 << 30, CPUCommit: g.VCPUs, MemCommit: g.MemMB, NetCommit: g.NICs}
			if g.Count > 0 {
				step = max(step, one.Load(p.Metric))
			}
			p.Groups = append(p.Groups, g)
		}
		r, err := Plan(p)
		if err != nil {
			t.Fatal(err)
		}
		least, most := math.Inf(1), 0.0
		for i := range r.Hosts {
			l := r.Hosts[i].Load(p.Metric)
			least, most = min(least, l), max(most, l)
		}
		if most-least > step+1e-9 {
			t.Fatalf("loads from %v to %v, largest VM %v", least, most, step)
		}
	})
}
