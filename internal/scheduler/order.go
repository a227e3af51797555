package scheduler

import (
	"cmp"
	"math"
	"slices"
)

// unit is what is placed in a row: all VMs of a group that nobody follows, or
// one VM that others follow. It is small, for there may be a million.
type unit struct {
	group, vm int32 // vm -1 for all that nobody follows
	class     int32 // index of the demand
	tolerates int32 // of the most demanding VM of the group's bundles
	following int32 // VMs that follow those of the group
	size      int32 // VMs of the group
	fixed     bool
}

// units lists all that is to be placed, in order, and the different demands:
// VMs with a host first, then those that accept fewer others, then those that
// more VMs follow, then larger groups. Among equals the larger VMs go first,
// since they are harder to fit, and equal ones together.
func (p *Problem) units(b *bundled) ([]unit, []demand) {
	units := make([]unit, 0, len(p.Groups))
	classes := map[demand]int32{}
	var demands []demand
	class := func(d demand) int32 {
		c, ok := classes[d]
		if !ok {
			c = int32(len(demands))
			classes[d] = c
			demands = append(demands, d)
		}
		return c
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		if g.Len() == 0 || b.leader(int32(i)) != nobody {
			continue
		}
		first := len(units)
		plain := demand{tolerates: math.MaxInt}.plus(g, 1)
		rank := unit{group: int32(i), vm: -1, size: int32(g.Len()), fixed: b.fixed[i] >= 0}
		tolerates := plain.tolerates
		leaders := b.leaders[int32(i)]
		for _, vm := range leaders {
			d := p.demandOf(b, seat{int32(i), vm})
			tolerates = min(tolerates, d.tolerates)
			rank.following += int32(d.vms - 1)
			u := rank
			u.vm, u.class = vm, class(d)
			units = append(units, u)
		}
		if g.Len() > len(leaders) {
			rank.class = class(plain)
			units = append(units, rank)
		}
		for j := first; j < len(units); j++ {
			units[j].following, units[j].tolerates = rank.following, int32(min(tolerates, math.MaxInt32))
		}
	}
	slices.SortFunc(units, func(a, b unit) int { return compare(&a, &b, demands) })
	return units, demands
}

// compare orders units. No two are equal.
func compare(a, b *unit, demands []demand) int {
	if a.fixed != b.fixed {
		if a.fixed {
			return -1
		}
		return 1
	}
	if c := cmp.Or(int(a.tolerates)-int(b.tolerates), int(b.following)-int(a.following), int(b.size)-int(a.size)); c != 0 {
		return c
	}
	if a.class != b.class {
		x, y := &demands[a.class], &demands[b.class]
		return cmp.Or(y.mem-x.mem, y.cpus-x.cpus, y.vms-x.vms, y.nics-x.nics, int(a.class-b.class))
	}
	return cmp.Or(int(a.group-b.group), int(a.vm-b.vm))
}
