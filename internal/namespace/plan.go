package namespace

import (
	"context"
	"slices"

	"minimega/internal/errs"
	"minimega/internal/scheduler"
	"minimega/pkg/ranges"
)

// Placement says on which host a queued VM would be launched. Name is empty
// for a VM that has none yet.
type Placement struct{ Name, Host string }

// Plan places every queued VM on a host of the namespace, and returns what may
// go wrong.
func (n *Namespace) Plan(ctx context.Context) (warnings []string, err error) {
	groups := n.Queue()
	places, warnings, err := n.schedule(n.survey(ctx, n.Hosts(), nil), groups)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.plan = slices.Equal(groups, n.queue)
	if !n.plan {
		return nil, errs.New(errs.State, "the queue changed meanwhile; run it again")
	}
	for i, g := range groups {
		g.hosts = places[i]
	}
	return warnings, nil
}

// schedule decides where VMs go: a host for each VM of each group.
func (n *Namespace) schedule(found *findings, groups []*Group) (places [][]string, warnings []string, err error) {
	p, err := n.problem(found, groups)
	if err != nil {
		return nil, nil, err
	}
	r, err := scheduler.Plan(p)
	if err != nil {
		return nil, nil, err
	}
	places = make([][]string, len(groups))
	for i, g := range groups {
		places[i] = make([]string, len(g.Names))
		for j := range g.Names {
			places[i][j] = r.HostOf(i, j)
		}
	}
	return places, r.Warnings, nil
}

// problem is what the scheduler has to solve.
func (n *Namespace) problem(found *findings, groups []*Group) (*scheduler.Problem, error) {
	if err := found.conflicts(groups); err != nil {
		return nil, err
	}
	return n.problemOf(found, groups), nil
}

// problemOf is what the scheduler has to solve, as the hosts have been found.
func (n *Namespace) problemOf(found *findings, groups []*Group) *scheduler.Problem {
	p := &scheduler.Problem{Hosts: found.hosts, Existing: found.where, Metric: n.Load(), Local: n.registry.host(), Limits: n.Limits()}
	for _, g := range groups {
		p.Groups = append(p.Groups, scheduler.Group{Names: g.Names, VCPUs: int(g.Config.VCPUs), MemMB: int(g.Config.Memory),
			NICs: len(g.Config.Networks), Host: g.Config.Schedule, Colocate: g.Config.Colocate, Coschedule: int(g.Config.Coschedule)})
	}
	return p
}

// verify refuses decisions of a dry run, or made by hand since, that do not fit
// any more.
func (n *Namespace) verify(found *findings, groups []*Group) (warnings []string, err error) {
	p, err := n.problem(found, groups)
	if err != nil {
		return nil, err
	}
	places, err := placesOf(p, groups)
	if err != nil {
		return nil, err
	}
	r, err := scheduler.Check(p, places)
	if err != nil {
		return nil, err
	}
	return r.Warnings, nil
}

// placesOf finds the hosts that groups were put on.
func placesOf(p *scheduler.Problem, groups []*Group) ([][]int32, error) {
	places := make([][]int32, len(groups))
	for i, g := range groups {
		for _, host := range g.hosts {
			at := slices.IndexFunc(p.Hosts, func(h scheduler.Host) bool { return h.Name == host })
			if at < 0 {
				return nil, errs.WithRemedy(errs.New(errs.State, "host %s has left the namespace since the dry run", host), "`ns schedule dry-run` decides anew")
			}
			places[i] = append(places[i], int32(at))
		}
	}
	return places, nil
}

func (n *Namespace) queuedLocked(name string) bool {
	return slices.ContainsFunc(n.queue, func(g *Group) bool { return slices.Contains(g.Names, name) })
}

var errNoPlan = errs.New(errs.State, "must run dry-run first")

// Placements returns what the last dry run, and moves since, decided.
func (n *Namespace) Placements() ([]Placement, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.plan {
		return nil, errNoPlan
	}
	var ps []Placement
	for _, g := range n.queue {
		for i, name := range g.Names {
			ps = append(ps, Placement{name, g.hosts[i]})
		}
	}
	return ps, nil
}

// Move changes where queued VMs will be launched.
func (n *Namespace) Move(target, host string) error {
	if host == "localhost" {
		host = n.registry.host()
	}
	names, err := ranges.Split(target)
	if err != nil {
		return errs.Wrap(errs.Invalid, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.plan {
		return errNoPlan
	}
	if !slices.Contains(n.hosts, host) {
		return errs.New(errs.NotFound, "new dst host is not in namespace")
	}
	for _, name := range names {
		if name != "all" && !n.queuedLocked(name) {
			return errs.New(errs.NotFound, "reassign %s: vm not found", name)
		}
	}
	for _, g := range n.queue {
		for i, name := range g.Names {
			if slices.Contains(names, "all") || slices.Contains(names, name) {
				g.hosts[i] = host
			}
		}
	}
	return nil
}
