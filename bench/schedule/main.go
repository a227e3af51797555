// Command schedule measures the scheduler: a million VMs on ten thousand
// hosts, and on fewer beside a peer that looks at every host for every VM.
package main

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"minimega/bench/figure"
	"minimega/internal/scheduler"
)

const (
	vms    = 1_000_000
	hosts  = 10_000
	rounds = 5
)

func main() { figure.Main(run) }

func run() error {
	for _, c := range []struct {
		what    string
		problem *scheduler.Problem
	}{
		{"200 groups", problem(vms, hosts, vms/200)},
		{"10,000 groups, few shapes mixed", problem(vms, hosts, vms/10_000)},
		{"a group for each VM", problem(vms, hosts, 1)},
		{"10,000 groups, each of its own shape", shapes(problem(vms, hosts, vms/10_000))},
		{"the same, and half of the memory", halved(shapes(problem(vms, hosts, vms/10_000)))},
		{"schedule, colocate, coschedule", demanding(problem(vms, hosts, 10))},
	} {
		if err := measure(c.what, c.problem); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	return beside(problem(20_000, 1_000, 100))
}

// problem makes VMs of twelve shapes in groups of a size, for hosts of three
// kinds of which some are in use. All fit, with little to spare.
func problem(vms, hosts, size int) *scheduler.Problem {
	p := &scheduler.Problem{Metric: scheduler.CPUCommit, Limits: scheduler.Limits{CPU: 8, Memory: 1}}
	for i := range hosts {
		h := scheduler.Host{Name: fmt.Sprintf("node%d", i), CPUs: 32 << (i % 3), MemMB: 393216 << (i % 3), Limit: -1}
		if i%7 == 0 {
			h.VMs, h.CPUCommit, h.MemCommit, h.NetCommit = 10, 20, 20480, 20
		}
		p.Hosts = append(p.Hosts, h)
	}
	for first := 0; first < vms; first += size {
		i := first / size
		g := scheduler.Group{VCPUs: 1 << (i % 4), MemMB: 512 << (i % 3), NICs: 1 + i%2, Coschedule: -1}
		for j := first; j < min(first+size, vms); j++ {
			g.Names = append(g.Names, fmt.Sprintf("vm-%d", j))
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// shapes gives each group memory that no other has.
func shapes(p *scheduler.Problem) *scheduler.Problem {
	for i := range p.Groups {
		p.Groups[i].MemMB = 512 + i*7919%2048 + i/2048
	}
	return p
}

// halved leaves the hosts too little memory, and no limits.
func halved(p *scheduler.Problem) *scheduler.Problem {
	p.Limits = scheduler.Limits{}
	for i := range p.Hosts {
		p.Hosts[i].MemMB = 40_000 << (i % 3)
	}
	return p
}

// demanding ties a part of the groups to hosts and to each other.
func demanding(p *scheduler.Problem) *scheduler.Problem {
	for i := range p.Groups {
		g := &p.Groups[i]
		switch i % 10 {
		case 0:
			g.Host = p.Hosts[i/10%len(p.Hosts)].Name
		case 1:
			g.Colocate = p.Groups[i+1].Names[i%len(p.Groups[i+1].Names)]
		case 3:
			g.Coschedule = 200
		}
	}
	return p
}

func measure(what string, p *scheduler.Problem) error {
	var times []time.Duration
	var held, used uint64
	var spread float64
	for range rounds {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var r *scheduler.Result
		t, err := figure.Time(func() (err error) { r, err = scheduler.Plan(p); return err })
		if err != nil {
			return err
		}
		times = append(times, t)
		runtime.ReadMemStats(&after)
		used = after.TotalAlloc - before.TotalAlloc
		runtime.GC()
		runtime.ReadMemStats(&after)
		held = after.HeapAlloc - before.HeapAlloc
		spread = balance(p, r)
	}
	figure.Alone("1,000,000 VMs on 10,000 hosts, "+what, figure.Median(times).Round(time.Millisecond).String(), "< 5 s")
	fmt.Printf("    memory: %.0f MB allocated, %.0f MB held by the result; load of the hosts that took VMs: %.2f of the largest VM apart\n",
		float64(used)/1e6, float64(held)/1e6, spread)
	return nil
}

// balance is how far the least and the most loaded of the hosts that got VMs
// are apart, in parts of what the largest VM adds to the smallest host.
func balance(p *scheduler.Problem, r *scheduler.Result) float64 {
	least, most := math.Inf(1), 0.0
	fewest := math.MaxInt
	for i := range r.Hosts {
		fewest = min(fewest, r.Hosts[i].CPUs)
		if r.Hosts[i].New > 0 {
			l := r.Hosts[i].Load(p.Metric)
			least, most = min(least, l), max(most, l)
		}
	}
	largest := 0
	for i := range p.Groups {
		largest = max(largest, p.Groups[i].VCPUs)
	}
	return (most - least) * float64(fewest) / float64(largest)
}

// beside compares with the peer, which must place all VMs on the same hosts:
// the queues take nothing away.
func beside(p *scheduler.Problem) error {
	p.Groups = p.Groups[:12*(len(p.Groups)/12)]
	var ours, theirs []time.Duration
	for range rounds {
		var r *scheduler.Result
		t, err := figure.Time(func() (err error) { r, err = scheduler.Plan(p); return err })
		if err != nil {
			return err
		}
		ours = append(ours, t)
		var worst float64
		t, err = figure.Time(func() (err error) { worst, err = scan(p); return err })
		if err != nil {
			return err
		}
		theirs = append(theirs, t)
		for i := range r.Hosts {
			if l := r.Hosts[i].Load(p.Metric); l > worst*1.1 {
				return fmt.Errorf("%s is loaded %.3f, the peer's most loaded host %.3f", r.Hosts[i].Name, l, worst)
			}
		}
	}
	figure.Against("20,000 VMs on 1,000 hosts", ours, "a scan of all hosts for each VM", theirs, "ratio < 1")
	return nil
}

// scan is the peer: it looks at all hosts for every VM, group by group. It
// returns the load of the most loaded host.
func scan(p *scheduler.Problem) (float64, error) {
	hosts := append([]scheduler.Host(nil), p.Hosts...)
	places := map[string]string{}
	worst := 0.0
	for i := range p.Groups {
		g := &p.Groups[i]
		for _, name := range g.Names {
			best := -1
			for j := range hosts {
				h := &hosts[j]
				if h.MemCommit+g.MemMB > h.MemMB || h.CPUCommit+g.VCPUs > 8*h.CPUs {
					continue
				}
				if best < 0 || h.Load(p.Metric) < hosts[best].Load(p.Metric) {
					best = j
				}
			}
			if best < 0 {
				return 0, errors.New("the peer finds no place for " + name)
			}
			h := &hosts[best]
			h.CPUCommit += g.VCPUs
			h.MemCommit += g.MemMB
			h.VMs++
			places[name] = h.Name
			worst = max(worst, h.Load(p.Metric))
		}
	}
	return worst, nil
}
