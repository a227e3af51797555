// Package scheduler decides on which host of a namespace each queued VM is
// launched, and predicts how loaded the hosts are then. It is pure: it reads
// no clock, file or network, and the same question gets the same answer.
//
// VMs that must be together form a bundle, which is placed as one. A bundle
// goes to the host that has the least load and holds it; hosts whose physical
// memory it would exceed come last, limits are never exceeded.
package scheduler

import (
	"errors"
	"math"

	"minimega/internal/errs"
)

// Metric is how the load of a host is measured.
type Metric string

// The metrics, by the words of `ns load`.
const (
	CPUCommit Metric = "cpucommit" // virtual CPUs per processor
	MemCommit Metric = "memcommit" // promised memory per memory
	NetCommit Metric = "netcommit" // network interfaces
)

// Host is a host of the namespace, and what its VMs were promised.
type Host struct {
	Name                            string
	CPUs, MemMB                     int // processors, MiB of physical memory
	CPUCommit, MemCommit, NetCommit int // virtual CPUs, MiB, interfaces
	VMs                             int // that live
	Limit                           int // most VMs that the host takes, -1 for any number
	// Tolerates is the most VMs that those on the host accept there by their
	// coschedule limits, themselves included; 0 for any number.
	Tolerates int
	// Down says why the host can have no VMs at present, "" if it can.
	Down string
}

// Load is how loaded the host is: a ratio, or for NetCommit a number.
func (h *Host) Load(m Metric) float64 {
	switch m {
	case MemCommit:
		return float64(h.MemCommit) / float64(max(1, h.MemMB))
	case NetCommit:
		return float64(h.NetCommit)
	}
	return float64(h.CPUCommit) / float64(max(1, h.CPUs))
}

// Group is VMs that share a configuration.
type Group struct {
	Names              []string // "" for a VM that gets its name later
	Count              int      // how many VMs there are, if Names is empty
	VCPUs, MemMB, NICs int      // of each VM; memory in MiB
	Host               string   // where they must be: a name or `localhost`, "" for anywhere
	Colocate           string   // the VM on whose host they must be, "" for none
	Coschedule         int      // most other VMs that they accept on their host, -1 for any number
}

// Len is the number of VMs.
func (g *Group) Len() int {
	if len(g.Names) > 0 {
		return len(g.Names)
	}
	return g.Count
}

func (g *Group) name(vm int) string {
	if vm < len(g.Names) {
		return g.Names[vm]
	}
	return ""
}

// Problem is what is to be scheduled. Of hosts that are equally loaded the one
// that stands first is taken.
type Problem struct {
	Hosts    []Host
	Groups   []Group
	Existing map[string]string // host by VM, at least of those that Outside names
	Metric   Metric            // "" for CPUCommit
	Local    string            // what `localhost` means
	Limits   Limits
}

// Prediction is a host as it will be.
type Prediction struct {
	Host
	New int // VMs of the queue that it gets
}

// Result says where the VMs go.
type Result struct {
	Hosts    []Prediction // in the order of the problem
	Places   [][]int32    // by group and VM, the index of its host in Hosts
	Warnings []string     // one line each, of what is allowed but may go wrong
}

// HostOf names the host of a VM of a group.
func (r *Result) HostOf(group, vm int) string { return r.Hosts[r.Places[group][vm]].Name }

// Plan schedules all groups, or none. Errors are Invalid (the groups
// contradict themselves), NotFound (a host or VM they name), Resource (they do
// not fit; the remedy says what would help) and Unreachable (no host is up).
func Plan(p *Problem) (*Result, error) { return p.told((*Problem).plan) }

// Check predicts the hosts for places that were chosen otherwise: moved by
// hand, or planned when the hosts were as they no longer are. Limits hold as
// in Plan; schedule and colocate do not, since who moves a VM wants it there.
// The result shares the places.
func Check(p *Problem, places [][]int32) (*Result, error) {
	return p.told(func(p *Problem) (*Result, error) { return p.check(places) })
}

// told asks for a result and explains the answer.
func (p *Problem) told(ask func(*Problem) (*Result, error)) (*Result, error) {
	r, err := ask(p)
	var nf *noFit
	if errors.As(err, &nf) {
		return nil, p.explain(nf, ask)
	}
	if err != nil {
		return nil, err
	}
	r.Warnings = p.warnings(r)
	return r, nil
}

// plan is Plan without explanations: what does not fit is a *noFit.
func (p *Problem) plan() (*Result, error) {
	hosts, err := p.index()
	if err != nil {
		return nil, err
	}
	b, err := p.bundles(hosts)
	if err != nil {
		return nil, err
	}
	units, demands := p.units(b)
	s := newPlacer(p, b)
	if err := s.place(units, demands); err != nil {
		return nil, err
	}
	return s.result(), nil
}

// check is Check without explanations.
func (p *Problem) check(places [][]int32) (*Result, error) {
	if _, err := p.index(); err != nil {
		return nil, err
	}
	if len(places) != len(p.Groups) {
		return nil, errs.New(errs.Invalid, "%d groups have places, of %d", len(places), len(p.Groups))
	}
	s := newPlacer(p, &bundled{})
	s.places = places
	for i := range p.Groups {
		g := &p.Groups[i]
		if err := g.check(); err != nil {
			return nil, err
		}
		d := demand{tolerates: math.MaxInt}.plus(g, 1)
		if len(places[i]) != g.Len() {
			return nil, errs.New(errs.Invalid, "%d VMs of group %d have places, of %d", len(places[i]), i, g.Len())
		}
		for vm, h := range places[i] {
			if h < 0 || int(h) >= len(p.Hosts) {
				return nil, errs.New(errs.Invalid, "VM `%s` has host %d of %d", g.name(vm), h, len(p.Hosts))
			}
			if err := s.put(seat{int32(i), int32(vm)}, &d, h); err != nil {
				return nil, err
			}
		}
	}
	return s.result(), nil
}

// index numbers the hosts.
func (p *Problem) index() (map[string]int32, error) {
	switch p.Metric {
	case "", CPUCommit, MemCommit, NetCommit:
	default:
		return nil, errs.New(errs.Invalid, "invalid load metric: `%s`", p.Metric)
	}
	if len(p.Hosts) == 0 {
		return nil, errs.WithRemedy(errs.New(errs.State, "namespace must contain at least one host to launch VMs"), "`ns add-hosts localhost`")
	}
	index := make(map[string]int32, len(p.Hosts))
	for i := range p.Hosts {
		h := &p.Hosts[i]
		if _, ok := index[h.Name]; ok {
			return nil, errs.New(errs.Invalid, "host `%s` is given twice", h.Name)
		}
		index[h.Name] = int32(i)
		if err := h.Check(); err != nil {
			return nil, err
		}
	}
	return index, nil
}

// Check refuses figures that no host can have.
func (h *Host) Check() error {
	for _, n := range []int{h.CPUs, h.MemMB, h.CPUCommit, h.MemCommit, h.NetCommit, h.VMs} {
		if n < 0 || n > maxCommit {
			return errs.New(errs.Invalid, "host `%s` tells impossible figures: %+v", h.Name, *h)
		}
	}
	return nil
}

// Bounds that keep sums from overflowing: a million VMs of maxDemand on a host
// of maxCommit stay below 2^63.
const (
	maxCommit = 1 << 60
	maxDemand = 1 << 40
	maxVMs    = 1 << 22
)
