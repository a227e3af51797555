package namespace

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/vm"
)

// saveOrder has a host save its VMs of a namespace to a directory of its own.
type saveOrder struct {
	Namespace, Dir string
	Files          string // the files directory of the host that orders
	Undo           bool   // remove what this order has written before
}

// saveReport is what a host did: the commands that launch its VMs again.
type saveReport struct{ VMs string }

// saveHere saves the VMs of this host.
func (r *Registry) saveHere(ctx context.Context, _ string, o saveOrder, progress func(SaveProgress)) (saveReport, error) {
	ns, err := r.Get(o.Namespace)
	if err != nil {
		return saveReport{}, err
	}
	dir := o.Dir
	if rel, ok := within(dir, o.Files); ok {
		dir = filepath.Join(r.opts.Files, rel)
	}
	if !filepath.IsAbs(dir) {
		return saveReport{}, errs.New(errs.Invalid, "not an absolute path: %s", dir)
	}
	r.mu.Lock()
	ours := r.saved[dir]
	r.mu.Unlock()
	switch {
	case o.Undo && ours:
		return saveReport{}, os.RemoveAll(dir)
	case o.Undo || !slices.ContainsFunc(r.opts.VMs.List(ns.Name), alive):
		return saveReport{}, nil
	}
	vms, err := ns.saveDir(ctx, dir, r.host(), progress, nil)
	if err == nil {
		r.mu.Lock()
		r.saved[dir] = true
		r.mu.Unlock()
	}
	return saveReport{vms}, err
}

// SaveVMs pauses all VMs of the namespace and writes them to a new directory on
// the host of each, with a script on this host that launches them again as they
// were, each where its files are. A save that fails on one host leaves nothing
// on any. The VMs stay paused.
func (n *Namespace) SaveVMs(ctx context.Context, dir string, progress func(SaveProgress)) error {
	if err := fresh(dir); err != nil {
		return err
	}
	here := n.registry.host()
	others := slices.DeleteFunc(n.Hosts(), func(h string) bool { return h == here })
	schedule := ""
	if len(others) > 0 {
		schedule = here
	}
	sum := &saveSum{ns: n, progress: progress, byHost: map[string]SaveProgress{}}
	scripts, err := n.saveElsewhere(ctx, others, dir, sum)
	if err == nil {
		_, err = n.saveDir(ctx, dir, schedule, func(p SaveProgress) { sum.set(here, p) }, func(vms string) (string, error) {
			return n.script(scripts + vms)
		})
	}
	if err != nil {
		err = errors.Join(err, n.unsave(context.WithoutCancel(ctx), others, dir))
	}
	return err
}

// saveElsewhere saves the VMs of other hosts, all at once, and returns the
// commands that launch them again.
func (n *Namespace) saveElsewhere(ctx context.Context, hosts []string, dir string, sum *saveSum) (string, error) {
	scripts := make([]string, len(hosts))
	err := cluster.Each(ctx, hosts, func(ctx context.Context, host string) error {
		o := saveOrder{Namespace: n.Name, Dir: dir, Files: n.registry.opts.Files}
		report, err := cluster.Ask[saveReport](ctx, n.registry.opts.Cluster, host, "save", o, func(p SaveProgress) { sum.set(host, p) })
		scripts[slices.Index(hosts, host)] = report.VMs
		return onHost(err, host)
	})
	return strings.Join(scripts, ""), err
}

// unsave removes what other hosts have written.
func (n *Namespace) unsave(ctx context.Context, hosts []string, dir string) error {
	return cluster.Each(ctx, hosts, func(ctx context.Context, host string) error {
		o := saveOrder{Namespace: n.Name, Dir: dir, Files: n.registry.opts.Files, Undo: true}
		_, err := cluster.Ask[saveReport, SaveProgress](ctx, n.registry.opts.Cluster, host, "save", o, nil)
		if errors.Is(err, errs.Unreachable) {
			return nil // it has been named already
		}
		return onHost(err, host)
	})
}

func alive(v *vm.VM) bool { return v.State().Alive() }

// saveSum adds up how far the hosts are.
type saveSum struct {
	ns       *Namespace
	progress func(SaveProgress)

	mu     sync.Mutex // guards the field below, and the order of progress
	byHost map[string]SaveProgress
}

func (s *saveSum) set(host string, p SaveProgress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHost[host] = p
	var sum SaveProgress
	for _, p := range s.byHost {
		sum.Completed, sum.Total = sum.Completed+p.Completed, sum.Total+p.Total
	}
	s.ns.mu.Lock()
	s.ns.saving = sum
	s.ns.mu.Unlock()
	s.progress(sum)
}
