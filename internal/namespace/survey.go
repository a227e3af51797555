package namespace

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/scheduler"
	"minimega/internal/vm"
	"minimega/pkg/iomeshage"
)

// surveyQuery asks a host what it has, and about names in its files directory.
type surveyQuery struct {
	Namespace string
	Files     []string `json:",omitempty"`
}

// surveyReport is what a host has: its facts, the VMs of the namespace, and
// which of the files.
type surveyReport struct {
	Facts host.Facts
	VMs   []surveyVM
	Files map[string]iomeshage.State `json:",omitempty"`
}

type surveyVM struct{ Name, UUID string }

// surveyHere is the report of this host.
func (r *Registry) surveyHere(_ context.Context, _ string, q surveyQuery, _ func(none)) (surveyReport, error) {
	report := surveyReport{Facts: r.opts.Facts()}
	for _, v := range r.opts.VMs.List(q.Namespace) {
		report.VMs = append(report.VMs, surveyVM{v.Name, v.UUID})
	}
	report.Files = r.states(q.Files)
	return report, nil
}

// findings are the reports of several hosts.
type findings struct {
	hosts []scheduler.Host
	where map[string]string // host by name of a VM
	uuids map[string]bool
	files map[string]sharedFile // by name, what of them is meant
}

// survey asks hosts what they have, and which of some files. One that does not
// answer, or with nonsense, is down.
func (n *Namespace) survey(ctx context.Context, hosts, files []string) *findings {
	f := &findings{hosts: make([]scheduler.Host, len(hosts)), where: map[string]string{}, uuids: map[string]bool{}, files: map[string]sharedFile{}}
	reports := make([]surveyReport, len(hosts))
	var own map[string]iomeshage.State
	var asking sync.WaitGroup
	asking.Go(func() { own = n.registry.states(files) })
	for i, name := range hosts {
		ask := func() {
			var err error
			if reports[i], err = n.ask(ctx, name, files); err != nil {
				f.hosts[i].Down = err.Error()
			}
		}
		if name == n.registry.host() {
			ask()
			continue
		}
		asking.Go(ask)
	}
	asking.Wait()
	f.add(n.registry.host(), own) // what this host has is meant, where it has it
	for i, name := range hosts {
		facts := &reports[i].Facts
		f.hosts[i] = scheduler.Host{Name: name, CPUs: facts.CPUs, MemMB: facts.MemTotal, CPUCommit: facts.CPUCommit, MemCommit: facts.MemCommit,
			NetCommit: facts.NetworkCommit, VMs: facts.VMs, Limit: facts.Limit, Tolerates: facts.Tolerates, Down: f.hosts[i].Down}
		if err := f.hosts[i].Check(); err != nil {
			f.hosts[i] = scheduler.Host{Name: name, Down: err.Error()}
		}
		for _, v := range reports[i].VMs {
			f.where[v.Name] = name
			f.uuids[v.UUID] = true
		}
		f.add(name, reports[i].Files)
	}
	return f
}

func (n *Namespace) ask(ctx context.Context, host string, files []string) (surveyReport, error) {
	if host == n.registry.host() {
		return n.registry.surveyHere(ctx, host, surveyQuery{Namespace: n.Name}, nil)
	}
	return cluster.Ask[surveyReport, none](ctx, n.registry.opts.Cluster, host, "survey", surveyQuery{n.Name, files}, nil)
}

// conflicts refuses groups one of whose names or whose UUID a VM on one of the
// hosts has.
func (f *findings) conflicts(groups []*Group) error {
	for _, g := range groups {
		if g.Config.UUID != "" && f.uuids[strings.ToLower(g.Config.UUID)] {
			return errs.New(errs.Exists, "vm already exists with UUID `%s`", g.Config.UUID)
		}
		for _, name := range g.Names {
			if _, ok := f.where[name]; ok && name != "" {
				return errs.New(errs.Exists, "vm already exists with name `%s`", name)
			}
		}
	}
	return nil
}

// configOf returns a copy of the configuration of a VM, wherever it is.
func (n *Namespace) configOf(ctx context.Context, which string) (*vm.Config, error) {
	v, err := n.registry.opts.VMs.Find(n.Name, which)
	if err == nil {
		return v.Config().Clone(), nil
	}
	for _, host := range slices.DeleteFunc(n.Hosts(), func(h string) bool { return h == n.registry.host() }) {
		c, e := cluster.Ask[*vm.Config, none](ctx, n.registry.opts.Cluster, host, "config", configQuery{n.Name, which}, nil)
		if e == nil && c != nil {
			return c, nil
		}
	}
	return nil, err
}

// configQuery asks a host for the configuration of one of its VMs.
type configQuery struct{ Namespace, VM string }

func (r *Registry) configHere(_ context.Context, _ string, q configQuery, _ func(none)) (*vm.Config, error) {
	v, err := r.opts.VMs.Find(q.Namespace, q.VM)
	if err != nil {
		return nil, err
	}
	return v.Config(), nil
}

// Infos returns what is known of the VMs of the namespace, on all its hosts.
// The error names hosts whose VMs are missing.
func (n *Namespace) Infos(ctx context.Context) ([]vm.Info, error) {
	hosts := n.Hosts()
	infos := make([][]vm.Info, len(hosts))
	failed := make([]error, len(hosts))
	var asking sync.WaitGroup
	for i, host := range hosts {
		if host == n.registry.host() {
			infos[i] = n.registry.opts.VMs.Info(n.Name)
			continue
		}
		asking.Go(func() {
			var err error
			infos[i], err = cluster.Ask[[]vm.Info, none](ctx, n.registry.opts.Cluster, host, "info", surveyQuery{Namespace: n.Name}, nil)
			failed[i] = onHost(err, host)
		})
	}
	asking.Wait()
	return slices.Concat(infos...), errs.Join(failed...)
}

// namesTime is how long whoever presses the tab key waits for other hosts.
const namesTime = 300 * time.Millisecond

// VMNames returns the names of the VMs of a namespace, on all hosts that answer
// at once, without making the namespace.
func (r *Registry) VMNames(namespace string) []string {
	r.mu.Lock()
	ns := r.spaces[namespace]
	r.mu.Unlock()
	if ns == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), namesTime)
	defer cancel()
	names := ns.survey(ctx, ns.Hosts(), nil).where
	for _, v := range r.opts.VMs.List(namespace) { // also where this host is none of the namespace's
		names[v.Name] = r.host()
	}
	return slices.Sorted(maps.Keys(names))
}
