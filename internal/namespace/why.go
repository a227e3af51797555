package namespace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/scheduler"
	"minimega/internal/vm"
	"minimega/pkg/ranges"
)

const (
	// Queued is the state of VMs that wait to be launched.
	Queued = "QUEUED"
	// Queue is what a finding is about that says so.
	Queue = "queue"
)

// whyQuery asks a host what it knows of a VM, or with "" of all that do not run.
type whyQuery struct{ Namespace, VM string }

// whyHere is what this host knows, without the queue. It makes no namespace.
func (r *Registry) whyHere(ctx context.Context, _ string, q whyQuery, _ func(none)) ([]vm.Why, error) {
	r.mu.Lock()
	ns := r.spaces[q.Namespace]
	r.mu.Unlock()
	if q.VM != "" {
		w, err := r.opts.VMs.Why(ctx, q.Namespace, q.VM)
		if err == nil {
			return []vm.Why{*w}, nil
		}
		if ns == nil {
			return nil, err
		}
		if list := ns.whyRefused(q.VM, ns.has); len(list) > 0 {
			return list, nil
		}
		return nil, err
	}
	list := r.opts.VMs.WhyAll(ctx, q.Namespace)
	if ns != nil {
		list = append(list, ns.whyRefused("", ns.has)...)
	}
	return list, nil
}

// has reports whether this host has a VM of that name.
func (n *Namespace) has(name string) bool { return n.registry.opts.VMs.Exists(n.Name, name) }

// HostWhy is what a host says of VMs that do not run.
type HostWhy struct {
	Host string
	VMs  []vm.Why
	Err  error // the host could not be asked
}

// Why explains the VMs of the namespace that do not run, on all its hosts and in
// its queue, or with a name that VM. here says that only this host is asked. The
// error is that nobody knows the VM; answers are then those of hosts that could
// not be asked.
func (n *Namespace) Why(ctx context.Context, name string, here bool) ([]HostWhy, error) {
	self := n.registry.host()
	hosts := []string{self}
	if !here {
		hosts = append(slices.DeleteFunc(n.Hosts(), func(h string) bool { return h == self }), self)
		slices.Sort(hosts)
	}
	answers := make([]HostWhy, len(hosts))
	_ = cluster.Each(ctx, hosts, func(ctx context.Context, host string) error {
		a := HostWhy{Host: host}
		q := whyQuery{n.Name, name}
		if host == self {
			a.VMs, a.Err = n.registry.whyHere(ctx, host, q, nil)
		} else {
			a.VMs, a.Err = cluster.Ask[[]vm.Why, none](ctx, n.registry.opts.Cluster, host, "why", q, nil)
		}
		answers[slices.Index(hosts, host)] = a
		return nil
	}) // the errors are in the answers
	found := n.survey(ctx, n.Hosts(), nil)
	mine := &answers[slices.Index(hosts, self)]
	mine.VMs = append(mine.VMs, n.whyQueued(ctx, name, found)...)
	return settle(answers, name, found.where)
}

// settle leaves out what is over: that a launch was refused, where the VM is
// there or waits to be launched again. Of a VM that is named the hosts that know
// nothing are left out as well, unless none does.
func settle(answers []HostWhy, name string, where map[string]string) ([]HostWhy, error) {
	waits := map[string]bool{}
	for _, a := range answers {
		for _, w := range a.VMs {
			waits[w.Name] = waits[w.Name] || w.State == Queued
		}
	}
	over := func(w vm.Why) bool {
		_, there := where[w.Name]
		return w.State == "" && w.Failure != nil && (there || waits[w.Name])
	}
	var kept []HostWhy
	var missing error
	known := false
	for _, a := range answers {
		a.VMs = slices.DeleteFunc(a.VMs, over)
		known = known || len(a.VMs) > 0
		if errors.Is(a.Err, errs.NotFound) {
			missing, a.Err = a.Err, nil
		}
		if name == "" || len(a.VMs) > 0 || a.Err != nil {
			kept = append(kept, a)
		}
	}
	if known || name == "" {
		return kept, nil
	}
	return kept, missing
}

// maxLabel bounds the names of VMs on a line.
const maxLabel = 160

// label names VMs on a line.
func label(names []string) string {
	text := ranges.Compact(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" }))
	if len(text) > maxLabel {
		text = text[:maxLabel] + "…"
	}
	return text
}

// waiting is the queue, as it is launched next.
type waiting struct {
	ns      *Namespace
	groups  []*Group // copies, whose VMs all have the names that they will get
	unnamed [][]bool // by group and VM: it has none yet
	planned bool

	problem *scheduler.Problem
	err     error             // why the queue as a whole is refused
	result  *scheduler.Result // nil then
}

// waiting copies the queue; used are the names that VMs have.
func (n *Namespace) waiting(used map[string]string) *waiting {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := &waiting{ns: n, planned: n.plan, unnamed: make([][]bool, len(n.queue))}
	next := n.unnamed
	for i, names := range nextNames(n.queue, used, &next) {
		g := *n.queue[i]
		for _, name := range g.Names {
			q.unnamed[i] = append(q.unnamed[i], name == "")
		}
		g.Names, g.hosts = names, slices.Clone(g.hosts)
		q.groups = append(q.groups, &g)
	}
	return q
}

// whyQueued explains the groups that wait, or the VM of that name in them: where
// it would be launched now, or what refuses it.
func (n *Namespace) whyQueued(ctx context.Context, name string, found *findings) (list []vm.Why) {
	q := n.waiting(found.where)
	wanted := func(g *Group) bool { return name == "" || slices.Contains(g.Names, name) }
	if !slices.ContainsFunc(q.groups, wanted) {
		return nil
	}
	q.try(found)
	for i, g := range q.groups {
		switch {
		case name == "":
			list = append(list, q.why(ctx, i, 0, len(g.Names)))
		case wanted(g):
			at := slices.Index(g.Names, name)
			list = append(list, q.why(ctx, i, at, at+1))
		}
	}
	return list
}

// try asks the scheduler for the whole queue, as a launch would.
func (q *waiting) try(found *findings) {
	q.problem = q.ns.problemOf(found, q.groups)
	if q.err = found.conflicts(q.groups); q.err != nil {
		return
	}
	if !q.planned {
		q.result, q.err = scheduler.Plan(q.problem)
		return
	}
	places, err := placesOf(q.problem, q.groups)
	if q.err = err; err == nil {
		q.result, q.err = scheduler.Check(q.problem, places)
	}
}

// why explains the VMs of a group from one on, up to another.
func (q *waiting) why(ctx context.Context, group, from, to int) vm.Why {
	g, here := q.groups[group], q.ns.registry.host()
	names := g.Names[from:to]
	hosts := q.ns.Hosts()
	w := vm.Why{Name: label(names), VMs: len(names), Namespace: q.ns.Name, Host: here, ID: -1, State: Queued, Findings: []vm.Finding{}}
	w.Add(vm.Finding{About: Queue, Text: "it waits in the queue of the namespace, to be placed on one of " + some(hosts), Remedy: "`vm launch` launches what waits, `ns flush` drops it"})
	if slices.Contains(q.unnamed[group][from:to], true) {
		w.Add(vm.Finding{About: "name", Good: true, Text: "it has none until it is launched; as things are it will be this one"})
	}
	places := q.places(group, from, to)
	w.Add(q.placement(group, from, to, places)...)
	w.Add(q.refusals(group)...)
	if slices.Contains(places, here) || places == nil && slices.Contains(hosts, here) {
		w.Add(q.ns.registry.opts.VMs.Launchable(ctx, g.Type, g.Config)...)
	}
	if f := q.ns.whyRefused(names[0], q.ns.has); len(f) > 0 {
		last := f[len(f)-1]
		w.Failure, w.When = last.Failure, last.When
	}
	return w
}

// places are the hosts of VMs of a group, nil if the queue is refused.
func (q *waiting) places(group, from, to int) (hosts []string) {
	if q.result == nil {
		return nil
	}
	for i := from; i < to; i++ {
		hosts = append(hosts, q.result.HostOf(group, i))
	}
	return hosts
}

// placement says where VMs of a group would go, or why the queue is refused and
// what would be if nothing else waited.
func (q *waiting) placement(group, from, to int, places []string) []vm.Finding {
	switch {
	case places != nil && q.planned:
		return []vm.Finding{{About: "placement", Good: true, Text: "`ns schedule` has put it on " + count(places), Remedy: "`ns schedule mv` moves it"}}
	case places != nil:
		return []vm.Finding{{About: "placement", Good: true, Text: "it would be launched on " + count(places)}}
	}
	facts := errs.FactsOf(q.err)
	if slices.Contains(q.groups[group].Names[from:to], facts.VM) || len(q.groups) == 1 && len(q.groups[0].Names) == to-from {
		return []vm.Finding{{About: "placement", Text: "it has no place: " + q.err.Error(), Remedy: facts.Remedy}}
	}
	list := []vm.Finding{{About: "placement", Text: "all that waits is launched together, which is refused: " + q.err.Error(), Remedy: facts.Remedy}}
	g := q.problem.Groups[group]
	if g.Names = g.Names[from:to]; g.Colocate != "" {
		return list // the other may wait, too
	}
	alone := *q.problem
	alone.Groups = []scheduler.Group{g}
	r, err := scheduler.Plan(&alone)
	if err != nil {
		return append(list, vm.Finding{About: "placement", Text: "nor would it have a place alone: " + err.Error(), Remedy: errs.FactsOf(err).Remedy})
	}
	hosts := make([]string, to-from)
	for i := range hosts {
		hosts[i] = r.HostOf(0, i)
	}
	return append(list, vm.Finding{About: "placement", Good: true, Text: "alone it would be launched on " + count(hosts)})
}

// maxRefusals bounds how many hosts are named that refuse a VM.
const maxRefusals = 8

// refusals says which hosts refuse a VM of a group as they are now, and why.
func (q *waiting) refusals(group int) (list []vm.Finding) {
	more := 0
	for _, v := range scheduler.Verdicts(q.problem, group) {
		f := vm.Finding{About: "host " + v.Host, Text: v.Why, Remedy: v.Remedy}
		switch {
		case v.Beyond:
			f.Text, f.Remedy = "with it more memory is promised there than there is", "`ns limit memory 1` refuses that"
		case v.Why == "":
			continue
		}
		if len(list) == maxRefusals {
			more++
			continue
		}
		list = append(list, f)
	}
	if more > 0 {
		list = append(list, vm.Finding{About: "hosts", Text: fmt.Sprintf("%d more refuse it", more)})
	}
	return list
}

// count lists hosts with how many VMs each gets, if there are several.
func count(hosts []string) string {
	vms := map[string]int{}
	var order []string
	for _, h := range hosts {
		if vms[h]++; vms[h] == 1 {
			order = append(order, h)
		}
	}
	if len(order) == 1 {
		return order[0]
	}
	slices.Sort(order)
	for i, h := range order {
		order[i] = fmt.Sprintf("%s (%d)", h, vms[h])
	}
	return some(order)
}

// some lists hosts, not more than a reader wants to see.
func some(hosts []string) string {
	const most = 16
	if more := len(hosts) - most; more > 0 {
		hosts = append(slices.Clone(hosts[:most]), fmt.Sprintf("%d more", more))
	}
	return strings.Join(hosts, ", ")
}
