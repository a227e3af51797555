package namespace

import (
	"context"
	"errors"
	"maps"
	"slices"

	"minimega/internal/cluster"
	"minimega/internal/errs"
)

// clearOrder has a host end what runs in a namespace, and part bridges from
// those of other hosts.
type clearOrder struct {
	Namespace string
	Bridges   []tunnelOrder `json:",omitempty"`
}

// clearHere ends a namespace on this host, if it has it.
func (r *Registry) clearHere(ctx context.Context, o clearOrder) error {
	var failed []error
	for _, b := range o.Bridges {
		_, err := r.tunnelHere(ctx, parting(b.Bridge, b.Tunnels))
		failed = append(failed, err)
	}
	if o.Namespace == cluster.All || r.Hosts(o.Namespace) != nil {
		failed = append(failed, r.Clear(ctx, o.Namespace))
	}
	return errs.Join(failed...)
}

// parting is the order that undoes what connected a bridge.
func parting(bridge string, t tunnels) tunnelOrder {
	return tunnelOrder{Bridge: bridge, Tunnels: tunnels{Kind: t.Kind, Key: t.Key}}
}

// ClearEverywhere ends a namespace, or all, on this host, then on all peers, on
// its hosts, and on those that could not be told of an earlier end. A host that
// cannot be told is an error, now and each time until it has been: what runs
// there goes on.
func (r *Registry) ClearEverywhere(ctx context.Context, name string) error {
	others := r.others(name)
	failed := []error{unlessAway(r.separate(ctx, name))} // who is away is named below
	owed := map[string]debt{}
	for _, ns := range r.named(name) {
		owed[ns.Name] = ns.debt()
	}
	failed = append(failed, r.owed.add(owed))
	err := r.Clear(ctx, name)
	failed = append(failed, err)
	if errors.Is(err, errLaunching) { // and is not cleared
		return errs.Join(failed...)
	}
	o := clearOrder{Namespace: name, Bridges: r.owed.to(name).Bridges}
	failed = append(failed, cluster.Each(ctx, others, func(ctx context.Context, host string) error {
		_, err := cluster.Ask[none, none](ctx, r.opts.Cluster, host, "clear", o, nil)
		if err == nil {
			err = r.owed.settle(name, host)
		}
		return onHost(err, host)
	}))
	return errs.Join(failed...)
}

// unlessAway leaves out of an error the hosts that could not be reached.
func unlessAway(err error) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var kept []error
		for _, e := range several.Unwrap() {
			kept = append(kept, unlessAway(e))
		}
		return errs.Join(kept...)
	}
	if errors.Is(err, errs.Unreachable) {
		return nil
	}
	return err
}

// debt is what other hosts are to be told when the namespace ends.
func (n *Namespace) debt() debt {
	d := debt{Hosts: slices.DeleteFunc(n.Hosts(), func(h string) bool { return h == n.registry.host() })}
	n.mu.Lock()
	defer n.mu.Unlock()
	for bridge, t := range n.bridges {
		d.Bridges = append(d.Bridges, parting(bridge, t))
	}
	return d
}

// others lists the peers and the other hosts of a namespace, or of all, and
// those that could not be told of an earlier end.
func (r *Registry) others(name string) []string {
	hosts := append(r.opts.Cluster.Peers(), r.owed.to(name).Hosts...)
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
			_, err := n.registry.tunnelHere(ctx, parting(bridge, t))
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
