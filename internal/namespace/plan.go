package namespace

import (
	"slices"

	"minimega/internal/errs"
	"minimega/pkg/ranges"
)

// Placement says on which host a queued VM would be launched. Name is empty
// for a VM that has none yet.
type Placement struct{ Name, Host string }

// Plan places every queued VM on a host of the namespace. With one host there
// is one place; what is checked is that nothing asks for another.
func (n *Namespace) Plan() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.planLocked()
}

func (n *Namespace) planLocked() error {
	for _, g := range n.queue {
		host := g.Config.Schedule
		if host == "" || host == "localhost" {
			host = n.registry.opts.Host
		}
		if host != n.registry.opts.Host {
			return errs.New(errs.Invalid, "VM scheduled on unknown host: `%s`", host)
		}
		if c := g.Config.Colocate; c != "" && !n.registry.opts.VMs.Exists(n.Name, c) && !n.queuedLocked(c) {
			return errs.New(errs.NotFound, "nonexistent colocate VMs: [%s]", c)
		}
		if l := g.Config.Coschedule; l >= 0 && n.countLocked() > int(l)+1 {
			return errs.New(errs.Resource, "too many VMs scheduled on %s for coschedule requirement of %d", host, l)
		}
		if g.hosts == nil {
			g.hosts = map[string]string{}
		}
		for _, name := range g.Names {
			if g.hosts[name] == "" {
				g.hosts[name] = host
			}
		}
	}
	n.plan = true
	return nil
}

func (n *Namespace) queuedLocked(name string) bool {
	return slices.ContainsFunc(n.queue, func(g *Group) bool { return slices.Contains(g.Names, name) })
}

// countLocked is how many VMs the host would have once the queue is launched.
func (n *Namespace) countLocked() int {
	count := 0
	for _, v := range n.registry.opts.VMs.List(n.Name) {
		if v.State().Alive() {
			count++
		}
	}
	for _, g := range n.queue {
		count += len(g.Names)
	}
	return count
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
		for _, name := range g.Names {
			ps = append(ps, Placement{name, g.hosts[name]})
		}
	}
	return ps, nil
}

// Move changes where queued VMs will be launched.
func (n *Namespace) Move(target, host string) error {
	if host == "localhost" {
		host = n.registry.opts.Host
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
		for _, name := range g.Names {
			if slices.Contains(names, "all") || slices.Contains(names, name) {
				g.hosts[name] = host
			}
		}
	}
	return nil
}
