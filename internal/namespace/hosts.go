package namespace

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/scheduler"
	"minimega/pkg/ranges"
)

func itoa(i int) string { return strconv.Itoa(i) }

// Hosts returns the hosts of the namespace, sorted.
func (n *Namespace) Hosts() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.hosts))
}

// AddHosts adds hosts by name or range: `localhost` is this one, `all` every
// peer.
func (n *Namespace) AddHosts(spec string) error {
	hosts, err := n.registry.opts.Cluster.Expand(spec)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.hosts = append(n.hosts, hosts...)
	slices.Sort(n.hosts)
	n.hosts = slices.Compact(n.hosts)
	n.mu.Unlock()
	n.keep()
	return nil
}

// DelHosts removes hosts; unknown ones are passed over, `all` removes every one.
// They need not be told of an end of the namespace any more.
func (n *Namespace) DelHosts(spec string) error {
	hosts, err := ranges.Split(spec)
	if err != nil {
		return errs.New(errs.Invalid, "invalid hosts -- %w", err)
	}
	if slices.Contains(hosts, "localhost") {
		hosts = append(hosts, n.registry.host())
	}
	n.mu.Lock()
	n.hosts = slices.DeleteFunc(n.hosts, func(h string) bool {
		return slices.Contains(hosts, h) || slices.Contains(hosts, "all")
	})
	n.mu.Unlock()
	n.keep()
	return n.registry.owed.settle(n.Name, hosts...)
}

// HasHost reports whether a host is in the namespace.
func (n *Namespace) HasHost(host string) bool { return slices.Contains(n.Hosts(), host) }

// Load returns how the load of a host is measured.
func (n *Namespace) Load() scheduler.Metric { n.mu.Lock(); defer n.mu.Unlock(); return n.load }

// SetLoad chooses how the load of a host is measured.
func (n *Namespace) SetLoad(metric scheduler.Metric) {
	n.mu.Lock()
	n.load = metric
	n.mu.Unlock()
	n.keep()
}

// Limits returns how much the hosts of the namespace may be promised.
func (n *Namespace) Limits() scheduler.Limits { n.mu.Lock(); defer n.mu.Unlock(); return n.limits }

// SetLimit changes one limit, see scheduler.Limits.Set.
func (n *Namespace) SetLimit(what, value string) error {
	n.mu.Lock()
	err := n.limits.Set(what, value)
	n.mu.Unlock()
	n.keep()
	return err
}

// tunnels is how `ns bridge` connected a bridge: by one tunnel between each
// two of the hosts.
type tunnels struct {
	Kind  string
	Key   uint32
	Hosts []string
}

// AddBridge connects the bridges of this name on all hosts of the namespace.
// With one host there is nothing to connect, but the bridge counts as
// connected. What fails on one host is undone on all.
func (n *Namespace) AddBridge(ctx context.Context, bridge, kind string) error {
	t := tunnels{Kind: kind, Key: rand.Uint32(), Hosts: n.Hosts()}
	n.mu.Lock()
	if had, ok := n.bridges[bridge]; ok {
		t.Key = had.Key
	}
	n.mu.Unlock()
	if len(t.Hosts) > 1 {
		if made, err := n.tunnel(ctx, bridge, t, t.Hosts, nil); err != nil {
			_, undone := n.tunnel(context.WithoutCancel(ctx), bridge, tunnels{Kind: kind, Key: t.Key}, t.Hosts, made)
			return errs.Join(err, undone)
		}
	}
	n.mu.Lock()
	n.bridges[bridge] = t
	n.mu.Unlock()
	n.keep()
	return nil
}

// DelBridge undoes AddBridge. The bridge counts as connected until all hosts
// have done so, but for those that are away and have left the namespace.
func (n *Namespace) DelBridge(ctx context.Context, bridge string) error {
	n.mu.Lock()
	t, ok := n.bridges[bridge]
	n.mu.Unlock()
	if !ok {
		return errs.New(errs.NotFound, "bridge is not associated with namespace")
	}
	if len(t.Hosts) > 1 {
		on := slices.DeleteFunc(slices.Clone(t.Hosts), func(h string) bool { return !n.HasHost(h) && !n.registry.opts.Cluster.Has(h) })
		if _, err := n.tunnel(ctx, bridge, tunnels{Kind: t.Kind, Key: t.Key}, on, nil); err != nil {
			return err
		}
	}
	n.mu.Lock()
	delete(n.bridges, bridge)
	n.mu.Unlock()
	n.keep()
	return nil
}

// tunnel has each of on connect its bridge as t says, and those of destroy
// remove it afterwards. It returns the hosts that had no such bridge before.
func (n *Namespace) tunnel(ctx context.Context, bridge string, t tunnels, on, destroy []string) (made []string, err error) {
	did := make([]tunneled, len(on))
	err = cluster.Each(ctx, on, func(ctx context.Context, host string) (err error) {
		o := tunnelOrder{Bridge: bridge, Tunnels: t, Destroy: slices.Contains(destroy, host)}
		did[slices.Index(on, host)], err = n.registry.tunnel(ctx, host, o)
		return err
	})
	for i, host := range on {
		if did[i].Made {
			made = append(made, host)
		}
	}
	return made, err
}
