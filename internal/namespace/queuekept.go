package namespace

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/internal/vm"
)

const queueSuffix = ".queue"

// queuedGroup is the entry of a group that waits, in the journal of its
// namespace: there for as long as it waits.
type queuedGroup struct {
	Type   vm.Type
	Names  []string `json:",omitempty"` // as those of a Group
	Count  int      `json:",omitempty"` // instead of Names, of VMs that all have none yet
	Config *vm.Config
}

// entry is the group as it is kept.
func (g *Group) entry() queuedGroup {
	q := queuedGroup{Type: g.Type, Names: g.Names, Config: g.Config}
	if !slices.ContainsFunc(g.Names, func(name string) bool { return name != "" }) {
		q.Names, q.Count = nil, len(g.Names)
	}
	return q
}

// group is what an earlier daemon kept, if it makes sense.
func (q *queuedGroup) group() (*Group, error) {
	names := q.Names
	if len(names) == 0 && q.Count > 0 && q.Count <= maxCount {
		names = make([]string, q.Count)
	}
	if len(names) == 0 || q.Config == nil || q.Type.String() == "" {
		return nil, errs.New(errs.Invalid, "no group of VMs")
	}
	for _, name := range names {
		if err := checkVMName(name); name != "" && err != nil {
			return nil, err
		}
	}
	return &Group{Type: q.Type, Names: names, Config: q.Config}, nil
}

// journal is where the queue of a namespace is kept; nil for nowhere.
func (r *Registry) journal(namespace string) *journal.Journal {
	if r.opts.Dir == "" {
		return nil
	}
	return journal.Open(filepath.Join(r.opts.Dir, namespace+queueSuffix))
}

// keepGroup has a group outlive this daemon, before it waits.
func (n *Namespace) keepGroup(g *Group) {
	e, err := n.queued.Add(g.entry())
	if err != nil {
		n.registry.opts.Log.Warn("queued VMs will not outlive this minimega", "namespace", n.Name, "vms", label(g.Names), "err", err)
	}
	g.kept = e
}

// dropGroups ends that of groups that wait no longer.
func (n *Namespace) dropGroups(groups []*Group) {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	for _, g := range groups {
		if err := g.kept.Remove(); err != nil {
			n.registry.opts.Log.Warn("VMs that wait no longer will wait again for the next minimega", "namespace", n.Name, "vms", label(g.Names), "err", err)
		}
	}
}

// rekeepQueue keeps groups that wait as they are now.
func (n *Namespace) rekeepQueue() {
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	for _, g := range n.Queue() {
		if err := g.kept.Replace(g.entry()); err != nil {
			n.registry.opts.Log.Warn("queued VMs will not outlive this minimega as they are", "namespace", n.Name, "vms", label(g.Names), "err", err)
		}
	}
}

// adoptQueue has what waited for an earlier daemon wait for this one.
func (n *Namespace) adoptQueue() error {
	entries, err := n.queued.Entries()
	failed := []error{err}
	for _, e := range entries {
		var q queuedGroup
		err := e.Read(&q)
		if err == nil {
			var g *Group
			if g, err = q.group(); err == nil {
				g.kept = e
				n.mu.Lock()
				n.queue = append(n.queue, g)
				n.mu.Unlock()
				continue
			}
		}
		failed = append(failed, fmt.Errorf("queued VMs in %s: %w", e.Path(), err))
	}
	return errors.Join(failed...)
}

// discardQueue drops what waited for an earlier daemon, and returns a line for
// each group.
func (n *Namespace) discardQueue() ([]string, error) {
	return journal.Drop(n.queued, func(q queuedGroup) string {
		what := label(q.Names)
		if _, err := q.group(); err != nil {
			what = "VMs that make no sense"
		} else if what == "" {
			what = fmt.Sprintf("%d VMs without names", q.Count)
		}
		return "queued " + what + " of namespace " + n.Name
	})
}
