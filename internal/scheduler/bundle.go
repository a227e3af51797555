package scheduler

import (
	"maps"
	"math"
	"slices"
	"strings"

	"minimega/internal/errs"
)

// seat is one VM of one group.
type seat struct{ group, vm int32 }

var nobody = seat{-1, -1}

// bundled says which groups follow which VM, and who has to be where.
type bundled struct {
	fixed    []int32           // by group: the host it must be on, -1 for any
	with     []seat            // by group: the queued VM it goes with in the end; nil if no group follows
	dragging map[seat][]int32  // by queued VM: the groups that go with it, in their order
	leaders  map[int32][]int32 // by group: its VMs that others go with, in their order
}

// leader is the VM that a group follows, directly or through others.
func (b *bundled) leader(group int32) seat {
	if b.with == nil {
		return nobody
	}
	return b.with[group]
}

// Outside returns the VMs that groups are to be colocated with and that are
// not queued themselves, sorted: of those the problem must tell the hosts.
func Outside(groups []Group) []string {
	queued := seats(groups)
	var out []string
	for name, s := range queued {
		if s == nobody {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// seats finds the VMs that some group names in Colocate; nobody stands for a
// VM that is not queued.
func seats(groups []Group) map[string]seat {
	found := map[string]seat{}
	for i := range groups {
		if c := groups[i].Colocate; c != "" {
			found[c] = nobody
		}
	}
	if len(found) == 0 {
		return found
	}
	for i := range groups {
		for j, name := range groups[i].Names {
			if name == "" {
				continue
			}
			if _, ok := found[name]; ok {
				found[name] = seat{int32(i), int32(j)}
			}
		}
	}
	return found
}

// bundles checks the groups and finds out who goes with whom.
func (p *Problem) bundles(hosts map[string]int32) (*bundled, error) {
	b := &bundled{fixed: make([]int32, len(p.Groups)), dragging: map[seat][]int32{}, leaders: map[int32][]int32{}}
	total, following := 0, 0
	for i := range p.Groups {
		g := &p.Groups[i]
		if err := g.check(); err != nil {
			return nil, err
		}
		if total += g.Len(); total > maxVMs {
			return nil, errs.New(errs.Invalid, "more than %d VMs to schedule", maxVMs)
		}
		if g.Colocate != "" {
			following++
		}
		var err error
		if b.fixed[i], err = p.fixed(hosts, g.Host); err != nil {
			return nil, err
		}
	}
	if following == 0 {
		return b, nil
	}
	return b, p.follow(b, hosts)
}

// check refuses what no host could ever give.
func (g *Group) check() error {
	if g.Host != "" && g.Colocate != "" {
		return errs.InVM(errs.New(errs.Invalid, "cannot specify schedule and colocate in the same config"), g.name(0))
	}
	for _, n := range []int{g.VCPUs, g.MemMB, g.NICs, g.Count} {
		if n < 0 || n > maxDemand {
			return errs.InVM(errs.New(errs.Invalid, "no VM can have %d CPUs, %d MB of memory and %d interfaces", g.VCPUs, g.MemMB, g.NICs), g.name(0))
		}
	}
	return nil
}

// fixed is the index of a host by name, -1 for no name.
func (p *Problem) fixed(hosts map[string]int32, name string) (int32, error) {
	if name == "" {
		return -1, nil
	}
	if name == "localhost" {
		name = p.Local
	}
	h, ok := hosts[name]
	if !ok {
		return -1, errs.New(errs.NotFound, "VM scheduled on unknown host: `%s`", name)
	}
	if p.Hosts[h].Down != "" {
		return -1, p.downError(h)
	}
	return h, nil
}

// follow finds for each group with Colocate where the chain of names ends.
func (p *Problem) follow(b *bundled, hosts map[string]int32) error {
	found := seats(p.Groups)
	missing := map[string]bool{}
	for name, s := range found {
		if _, ok := p.Existing[name]; s == nobody && !ok {
			missing[name] = true
		}
	}
	if len(missing) > 0 {
		return errs.New(errs.NotFound, "nonexistent colocate VMs: [%s]", strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
	b.with = make([]seat, len(p.Groups))
	for i := range b.with {
		b.with[i] = nobody
	}
	done := make([]bool, len(p.Groups))
	for i := range p.Groups {
		if err := p.walk(b, hosts, found, done, int32(i)); err != nil {
			return err
		}
	}
	for i, s := range b.with {
		if s != nobody {
			if b.dragging[s] == nil {
				b.leaders[s.group] = append(b.leaders[s.group], s.vm)
			}
			b.dragging[s] = append(b.dragging[s], int32(i))
		}
	}
	for _, vms := range b.leaders {
		slices.Sort(vms)
	}
	return nil
}

// walk follows the chain from a group to its end and notes it for all groups
// on the way, so that each is walked once.
func (p *Problem) walk(b *bundled, hosts map[string]int32, found map[string]seat, done []bool, group int32) error {
	var path []int32
	on := map[int32]bool{}
	end, host := nobody, int32(-1)
	for at := group; ; {
		c := p.Groups[at].Colocate
		if c == "" {
			host = -1 // that of the leader's group holds for all
			break
		}
		if done[at] {
			end, host = b.with[at], b.fixed[at]
			break
		}
		if on[at] {
			return p.cycle(path[slices.Index(path, at):])
		}
		on[at] = true
		path = append(path, at)
		end = found[c]
		if end == nobody {
			var err error
			if host, err = p.fixed(hosts, p.Existing[c]); err != nil {
				return err
			}
			break
		}
		at = end.group
	}
	for _, g := range path {
		b.with[g], b.fixed[g], done[g] = end, host, true
	}
	return nil
}

// cycle is the error for groups each of which follows the next and the last
// the first.
func (p *Problem) cycle(groups []int32) error {
	names := make([]string, 0, len(groups)+1)
	for _, g := range groups {
		names = append(names, p.Groups[g].Colocate)
		if len(names) == 8 && len(groups) > 8 {
			names = append(names, "…")
			break
		}
	}
	names = append(names, names[0])
	return errs.WithRemedy(errs.New(errs.Invalid, "colocate goes round in a circle: %s", strings.Join(names, " -> ")),
		"one of these VMs must do without colocate")
}

// demand is what a bundle needs of one host.
type demand struct {
	vms, cpus, mem, nics int
	tolerates            int // most VMs on the host, math.MaxInt for any number
}

func (d demand) plus(g *Group, vms int) demand {
	d.vms += vms
	d.cpus += vms * g.VCPUs
	d.mem += vms * g.MemMB
	d.nics += vms * g.NICs
	if vms > 0 && g.Coschedule >= 0 && g.Coschedule < math.MaxInt32 {
		d.tolerates = min(d.tolerates, g.Coschedule+1)
	}
	return d
}

// demandOf is the demand of one VM of a group with all that follow it.
func (p *Problem) demandOf(b *bundled, s seat) demand {
	d := demand{tolerates: math.MaxInt}.plus(&p.Groups[s.group], 1)
	for _, g := range b.dragging[s] {
		d = d.plus(&p.Groups[g], p.Groups[g].Len())
	}
	return d
}
