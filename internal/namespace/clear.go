package namespace

import (
	"context"
	"maps"
	"slices"

	"minimega/internal/cluster"
	"minimega/internal/errs"
)

// clearOrder has a host end what runs in a namespace.
type clearOrder struct{ Namespace string }

// clearHere ends a namespace on this host, if it has it.
func (r *Registry) clearHere(ctx context.Context, o clearOrder) error {
	if o.Namespace != "all" && r.Hosts(o.Namespace) == nil {
		return nil
	}
	return r.Clear(ctx, o.Namespace)
}

// ClearEverywhere ends a namespace, or all, on this host, then on all peers, on
// its hosts, and on those that could not be told of an earlier end. A host that
// cannot be told is an error, now and each time until it has been: what runs
// there goes on.
func (r *Registry) ClearEverywhere(ctx context.Context, name string) error {
	others := r.others(name)
	owed := map[string][]string{}
	for _, ns := range r.named(name) {
		owed[ns.Name] = slices.DeleteFunc(ns.Hosts(), func(h string) bool { return h == r.host() })
	}
	failed := []error{r.separate(ctx, name), r.owed.add(owed)}
	if err := r.Clear(ctx, name); err != nil {
		return errs.Join(append(failed, err)...)
	}
	failed = append(failed, cluster.Each(ctx, others, func(ctx context.Context, host string) error {
		_, err := cluster.Ask[none, none](ctx, r.opts.Cluster, host, "clear", clearOrder{name}, nil)
		if err == nil {
			err = r.owed.settle(name, host)
		}
		return onHost(err, host)
	}))
	return errs.Join(failed...)
}

// others lists the peers and the other hosts of a namespace, or of all, and
// those that could not be told of an earlier end.
func (r *Registry) others(name string) []string {
	hosts := append(r.opts.Cluster.Peers(), r.owed.to(name)...)
	for _, ns := range r.named(name) {
		hosts = append(hosts, ns.Hosts()...)
	}
	slices.Sort(hosts)
	return slices.DeleteFunc(slices.Compact(hosts), func(h string) bool { return h == r.host() })
}

// separate undoes what `ns bridge` did on all hosts for a namespace, or for all.
func (r *Registry) separate(ctx context.Context, name string) error {
	var failed []error
	for _, ns := range r.named(name) {
		for _, bridge := range ns.connected() {
			failed = append(failed, ns.DelBridge(ctx, bridge))
		}
	}
	return errs.Join(failed...)
}

// named returns the namespace of that name, if there is one, or all.
func (r *Registry) named(name string) (spaces []*Namespace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ns := range r.spaces {
		if name == cluster.All || ns.Name == name {
			spaces = append(spaces, ns)
		}
	}
	return spaces
}

// disconnect ends what connects the namespace's VLANs and bridges on this host
// with those of others.
func (n *Namespace) disconnect(ctx context.Context) error {
	failed := []error{n.registry.connect(ctx, n.Name, nil)}
	for _, bridge := range n.connected() {
		n.mu.Lock()
		t := n.bridges[bridge]
		delete(n.bridges, bridge)
		n.mu.Unlock()
		if len(t.Hosts) > 1 {
			_, err := n.registry.tunnelHere(ctx, tunnelOrder{Bridge: bridge, Tunnels: tunnels{Kind: t.Kind, Key: t.Key}})
			failed = append(failed, err)
		}
	}
	return errs.Join(failed...)
}

// connected lists the bridges that `ns bridge` connected.
func (n *Namespace) connected() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.bridges))
}
