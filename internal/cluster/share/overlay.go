package share

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/pkg/meshage"
)

// Joiner joins the VLANs of a namespace with those of other hosts, given by
// their addresses. network.Manager is one.
type Joiner interface {
	SetPeers(ctx context.Context, namespace string, peers []netip.Addr) error
}

// Overlay knows over which hosts each namespace reaches, and keeps the network
// told of their addresses.
type Overlay struct {
	cluster *cluster.Cluster
	network Joiner
	log     *slog.Logger
	follow  *followers
	turn    chan struct{} // one token: the right to tell the network

	mu        sync.Mutex // guards the fields below
	hosts     map[string][]string
	addresses map[string]netip.Addr // also of hosts that have left: they may be back at once
}

// NewOverlay returns the overlay of a host without namespaces.
func NewOverlay(c *cluster.Cluster, network Joiner, log *slog.Logger) *Overlay {
	return &Overlay{cluster: c, network: network, log: log, follow: newFollowers(), turn: make(chan struct{}, 1),
		hosts: map[string][]string{}, addresses: map[string]netip.Addr{}}
}

// Join begins to follow the addresses of the members.
func (o *Overlay) Join(mesh meshage.Mesh) {
	o.follow.follow(mesh, func(ctx context.Context, e meshage.Event) {
		if e.Left || !o.learn(e.Member) {
			return
		}
		if err := o.refresh(ctx, e.Member.Name); err != nil && ctx.Err() == nil {
			o.log.Warn("VLANs are not joined with those of a host", "host", e.Member.Name, "err", err)
		}
	})
}

// Close ends the following; the network stays as it is.
func (o *Overlay) Close() error { o.follow.close(); return nil }

// learn takes down where a member is, and reports whether that is news.
func (o *Overlay) learn(m meshage.Member) bool {
	addr, err := netip.ParseAddr(m.Address)
	if err != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.addresses[m.Name]
	o.addresses[m.Name] = addr
	return old != addr
}

// Set says over which hosts a namespace reaches. This host may be among them;
// alone, or none at all, it is not joined with any.
func (o *Overlay) Set(ctx context.Context, namespace string, hosts []string) error {
	others := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return h == o.cluster.Host() })
	for _, m := range o.cluster.Members() {
		if slices.Contains(others, m.Name) {
			o.learn(m)
		}
	}
	o.mu.Lock()
	known, had := o.hosts[namespace]
	if len(others) == 0 {
		delete(o.hosts, namespace)
	} else {
		o.hosts[namespace] = others
	}
	o.mu.Unlock()
	if !had && len(others) == 0 || had && slices.Equal(known, others) {
		return nil
	}
	return o.tell(ctx, namespace)
}

// refresh tells the network anew of all namespaces that reach to a host.
func (o *Overlay) refresh(ctx context.Context, host string) error {
	o.mu.Lock()
	all := maps.Clone(o.hosts)
	o.mu.Unlock()
	var failed []error
	for ns, hosts := range all {
		if slices.Contains(hosts, host) {
			failed = append(failed, o.tell(ctx, ns))
		}
	}
	return errs.Join(failed...)
}

// tell passes what is known of a namespace on to the network.
func (o *Overlay) tell(ctx context.Context, namespace string) error {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	o.mu.Lock()
	var peers []netip.Addr
	for _, host := range o.hosts[namespace] {
		// Daemons on one host see each other at its loopback address, where there
		// is nothing to join.
		if a, ok := o.addresses[host]; ok && !a.IsLoopback() {
			peers = append(peers, a)
		}
	}
	o.mu.Unlock()
	return o.network.SetPeers(ctx, namespace, peers)
}
