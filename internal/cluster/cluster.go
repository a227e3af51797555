// Package cluster is how the daemons of a mesh talk to each other: typed
// requests, with progress on the way and errors that keep their host and kind.
// What is asked is up to others: each kind of request has a name, served by
// whoever registers it with Serve, and sent with Ask.
package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/meshage"
	"minimega/pkg/ranges"
)

// Cluster is this daemon's place among the others. One without a mesh is alone.
type Cluster struct {
	host string

	mu      sync.Mutex // guards the fields below
	mesh    meshage.Mesh
	serving map[string]meshage.Handler
	timeout time.Duration
}

// All is the word for every peer.
const All = "all"

// New returns the cluster of a host that is alone as yet.
func New(host string) *Cluster {
	return &Cluster{host: host, serving: map[string]meshage.Handler{}}
}

// Join makes the members of a mesh its peers, and serves them what is
// registered. It is called once.
func (c *Cluster) Join(mesh meshage.Mesh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mesh = mesh
	for name, h := range c.serving {
		mesh.Handle(protocol(name), h)
	}
}

// Host is the name of this host.
func (c *Cluster) Host() string { return c.host }

// Mesh returns the mesh, nil for a host that is alone.
func (c *Cluster) Mesh() meshage.Mesh { c.mu.Lock(); defer c.mu.Unlock(); return c.mesh }

// Timeout is how long a command may take on other hosts, 0 meaning any time.
func (c *Cluster) Timeout() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.timeout }

// SetTimeout changes Timeout, for commands to come.
func (c *Cluster) SetTimeout(d time.Duration) { c.mu.Lock(); c.timeout = d; c.mu.Unlock() }

// Members are the hosts that can be reached besides this one, by name.
func (c *Cluster) Members() []meshage.Member {
	mesh := c.Mesh()
	if mesh == nil {
		return nil
	}
	return slices.DeleteFunc(mesh.Members(), func(m meshage.Member) bool { return m.Name == c.host })
}

// Peers returns the names of Members, each once.
func (c *Cluster) Peers() []string {
	var names []string
	for _, m := range c.Members() {
		names = append(names, m.Name)
	}
	return slices.Compact(names)
}

// Has reports whether a host is this one or a peer.
func (c *Cluster) Has(host string) bool {
	return host == c.host || slices.Contains(c.Peers(), host)
}

// Expand reads a range of hosts: `localhost` is this one, `all` every peer.
// The error names the first that is not in the mesh.
func (c *Cluster) Expand(spec string) ([]string, error) {
	names, err := ranges.Split(spec)
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid hosts -- %w", err)
	}
	var hosts []string
	for _, name := range names {
		switch {
		case name == All:
			hosts = append(hosts, c.Peers()...)
		case name == "localhost":
			hosts = append(hosts, c.host)
		case c.Has(name):
			hosts = append(hosts, name)
		default:
			return nil, errs.WithRemedy(errs.New(errs.NotFound, "unknown host: `%s`", name), "`mesh list` shows the hosts that can be reached")
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts), nil
}

// Each does something for every host at once, and joins the errors, each with
// its host, in the order of hosts.
func Each(ctx context.Context, hosts []string, do func(ctx context.Context, host string) error) error {
	failed := make([]error, len(hosts))
	var doing sync.WaitGroup
	for i, host := range hosts {
		doing.Go(func() { failed[i] = OnHost(do(ctx, host), host) })
	}
	doing.Wait()
	return errs.Join(failed...)
}
