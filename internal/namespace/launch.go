package namespace

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/errs"
)

// launch makes the VMs of one pass over the queue, on all hosts at once. A
// pass that cannot be planned has not run.
func (n *Namespace) launch(ctx context.Context, q *taken, progress func(done, failed, total int)) error {
	found := n.survey(ctx, n.Hosts(), n.registry.sharedNames(n.Hosts(), q.groups))
	warnings, err := n.place(found, q)
	if err != nil {
		n.note(namesOf(q.groups), err)
		return err
	}
	n.note(namesOf(q.groups), nil)
	for _, w := range warnings {
		n.registry.opts.Log.Warn("launch", "namespace", n.Name, "warning", w)
	}
	q.ran = true
	n.dropGroups(q.groups) // what is not made when this minimega is killed is lost with the command
	n.nameAll(found.where, q.groups)
	p := n.begin(q.groups, progress)
	orders := n.orders(q.groups, found.files)
	err = cluster.Each(ctx, orders.hosts, func(ctx context.Context, host string) error {
		o := orders.of[host]
		err := n.launchOn(ctx, host, o, func(l launched) { p.set(host, l) })
		if o.count() == 0 && errors.Is(err, errs.Unreachable) {
			// Not what was asked for, and whoever asks that host is told.
			n.registry.opts.Log.Warn("a host of the namespace is not connected with the others", "namespace", n.Name, "host", host, "err", err)
			return nil
		}
		if err != nil {
			p.lost(host, o.count())
		}
		if errors.Is(err, errs.Unreachable) && host != n.registry.host() { // else that host remembers it
			n.note(o.names(), err)
			err = fmt.Errorf("%w (it was to launch %s)", err, label(o.names()))
		}
		return err
	})
	p.end()
	return err
}

// place decides where the VMs go, unless that is decided: then it must still fit.
func (n *Namespace) place(found *findings, q *taken) (warnings []string, err error) {
	if q.planned {
		return n.verify(found, q.groups)
	}
	places, warnings, err := n.schedule(found, q.groups)
	if err != nil {
		return nil, err
	}
	for i, g := range q.groups {
		c := *g
		c.hosts = places[i]
		q.groups[i] = &c
	}
	return warnings, nil
}

// nameAll gives every VM without a name one that no VM of the namespace has, of
// which used are found.
func (n *Namespace) nameAll(used map[string]string, groups []*Group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, names := range nextNames(groups, used, &n.unnamed) {
		c := *groups[i]
		c.Names = names
		groups[i] = &c
	}
}

// nextNames are the names of the VMs of groups, with new ones for those that have
// none; used are those that VMs have. next, the N of the next vm-N, moves on.
func nextNames(groups []*Group, used map[string]string, next *int) [][]string {
	taken := maps.Clone(used)
	for _, g := range groups {
		for _, name := range g.Names {
			taken[name] = ""
		}
	}
	all := make([][]string, len(groups))
	for i, g := range groups {
		all[i] = slices.Clone(g.Names)
		for j, name := range g.Names {
			for name == "" {
				candidate := fmt.Sprintf("vm-%d", *next)
				*next++
				if _, ok := taken[candidate]; !ok {
					name = candidate
				}
			}
			all[i][j] = name
		}
	}
	return all
}

// orderSet is what each host is to do.
type orderSet struct {
	hosts []string
	of    map[string]launchOrder
}

// orders parts the groups by host. Every host of the namespace gets an order,
// also one without VMs: they are connected with each other, and with this one,
// whose taps are part of the experiment.
func (n *Namespace) orders(groups []*Group, files map[string]sharedFile) orderSet {
	here := n.registry.host()
	all := n.Hosts()
	for _, g := range groups {
		all = append(all, g.hosts...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	connected := all
	if !slices.Contains(all, here) {
		connected = append(slices.Clone(all), here)
		slices.Sort(connected)
	}
	set := orderSet{hosts: connected, of: map[string]launchOrder{}}
	for _, host := range connected {
		o := launchOrder{Namespace: n.Name, Hosts: connected, Files: n.registry.opts.Files}
		for _, g := range groups {
			var names []string
			for i, name := range g.Names {
				if g.hosts[i] == host {
					names = append(names, name)
				}
			}
			if len(names) > 0 {
				o.Groups = append(o.Groups, orderGroup{g.Type, names, g.Config.Clone()})
				o.Shared = files
			}
		}
		set.of[host] = o
	}
	return set
}

func (o *launchOrder) names() (all []string) {
	for _, g := range o.Groups {
		all = append(all, g.Names...)
	}
	return all
}

func (o *launchOrder) count() (vms int) {
	for _, g := range o.Groups {
		vms += len(g.Names)
	}
	return vms
}

// pass follows one pass over the queue.
type pass struct {
	ns       *Namespace
	run      *Run
	progress func(done, failed, total int)

	mu     sync.Mutex // guards the field below, and the order of progress
	byHost map[string]launched
}

// maxRuns bounds how many passes are remembered, of those that have ended.
const maxRuns = 1000

func (n *Namespace) begin(groups []*Group, progress func(done, failed, total int)) *pass {
	run := &Run{Start: time.Now(), Hosts: len(n.Hosts())}
	for _, g := range groups {
		run.Total += len(g.Names)
	}
	n.mu.Lock()
	n.runs = append(n.runs, run)
	if ended := slices.IndexFunc(n.runs, func(r *Run) bool { return !r.End.IsZero() }); len(n.runs) > maxRuns && ended >= 0 {
		n.runs = slices.Delete(n.runs, ended, ended+1)
	}
	n.mu.Unlock()
	return &pass{ns: n, run: run, progress: progress, byHost: map[string]launched{}}
}

// set takes down how far a host is.
func (p *pass) set(host string, l launched) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byHost[host] = l
	var sum launched
	for _, l := range p.byHost {
		sum.Done, sum.Failed = sum.Done+l.Done, sum.Failed+l.Failed
	}
	p.ns.mu.Lock()
	p.run.Launched, p.run.Failed = sum.Done-sum.Failed, sum.Failed
	p.ns.mu.Unlock()
	if p.progress != nil {
		p.progress(sum.Done, sum.Failed, p.run.Total)
	}
}

// lost counts the VMs of a host of which nothing was heard as failed.
func (p *pass) lost(host string, vms int) {
	p.mu.Lock()
	l := p.byHost[host]
	p.mu.Unlock()
	if l.Done < vms {
		p.set(host, launched{Done: vms, Failed: l.Failed + vms - l.Done})
	}
}

func (p *pass) end() {
	p.ns.mu.Lock()
	defer p.ns.mu.Unlock()
	p.run.End = time.Now()
}
