// Package namespace says what an experiment may do: each namespace has its own
// VM configuration, queue of launches, hosts and settings, apart from all others.
package namespace

import (
	"context"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"sync"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
)

// Default is the namespace that always exists.
const Default = "minimega"

var validName = regexp.MustCompile(`^[a-zA-Z0-9-_.]+$`)

// ErrName is what a name with other characters gets.
var ErrName = errs.New(errs.Invalid, "invalid name; must only include letters, numbers, hyphens and underscores")

// CheckName refuses names that could not stand in a path or a target. `.` and
// `..` are made of letters that are allowed, but mean directories.
func CheckName(name string) error {
	if !validName.MatchString(name) || name == "." || name == ".." || len(name) > 128 {
		return ErrName
	}
	return nil
}

// Options is what a Registry is made of.
type Options struct {
	// Cluster leads to the other hosts that a namespace may have.
	Cluster *cluster.Cluster
	// Facts tells what this host is and has promised.
	Facts func() host.Facts
	// Files is this host's files directory. Paths in it mean, on another host,
	// those in its own; Fetch brings there what that host lacks.
	Files string
	Fetch func(ctx context.Context, path string) error
	// Share tells what is in the files directory, nil that it is compared with
	// nobody's.
	Share Share
	// Overlay connects this host's VLANs of a namespace with those of the other
	// hosts; none disconnects.
	Overlay func(ctx context.Context, namespace string, hosts []string) error
	// Tunnels connects a bridge with those of the other hosts by tunnels of a
	// kind and key, and reports whether it made the bridge; none disconnects.
	Tunnels func(ctx context.Context, bridge, kind string, key uint32, hosts []string) (made bool, err error)
	// DestroyBridge removes a bridge that nothing uses.
	DestroyBridge func(ctx context.Context, bridge string) error

	VMs *vm.Manager
	// VLANs resolves what stands for a VLAN in a netspec.
	VLANs interface {
		Resolve(namespace, spec string) (vlan int, alias string, err error)
	}
	// NetDrivers tells which network devices a QEMU knows.
	NetDrivers func(ctx context.Context, qemu string) func(string) bool
	// Clean lists what other owners do when a namespace goes, in order, after
	// its VMs have gone.
	Clean []func(ctx context.Context, namespace string) error
	// Dir is where hosts and stored configurations are kept for a later daemon;
	// "" for nowhere.
	Dir string
	Log *slog.Logger
}

// Registry owns the namespaces of this host.
type Registry struct {
	opts Options
	owed *owed

	mu     sync.Mutex // guards the fields below
	spaces map[string]*Namespace
	saved  map[string]bool // directories that VMs were saved to for other hosts
}

// NewRegistry returns a registry with the default namespace.
func NewRegistry(opts Options) *Registry {
	r := &Registry{opts: opts, owed: newOwed(opts.Dir), spaces: map[string]*Namespace{}, saved: map[string]bool{}}
	r.spaces[Default] = newNamespace(r, Default)
	r.serve()
	return r
}

// host is the name of this host.
func (r *Registry) host() string { return r.opts.Cluster.Host() }

// Get returns a namespace, making it if needed. The error is ErrName.
func (r *Registry) Get(name string) (*Namespace, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	ns := r.spaces[name]
	made := ns == nil
	if made {
		ns = newNamespace(r, name)
		r.spaces[name] = ns
	}
	r.mu.Unlock()
	if made && !slices.Equal(ns.Hosts(), []string{r.host()}) {
		ns.keep() // which peers there were, nobody will know later
	}
	return ns, nil
}

// Names returns the names of the namespaces, sorted.
func (r *Registry) Names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.spaces))
}

// Hosts returns the hosts of a namespace, without making one.
func (r *Registry) Hosts(name string) []string {
	r.mu.Lock()
	ns := r.spaces[name]
	r.mu.Unlock()
	if ns == nil {
		return nil
	}
	return ns.Hosts()
}

var errLaunching = errs.New(errs.State, "scheduler still running for namespace")

// Clear ends all that runs in a namespace on this host and forgets it; `all`
// means every one. The default namespace is made again at once.
func (r *Registry) Clear(ctx context.Context, name string) error {
	if name == "all" {
		var failed []error
		for _, n := range r.Names() {
			failed = append(failed, r.Clear(ctx, n))
		}
		return errs.Join(failed...)
	}
	ns, err := r.Get(name)
	if err != nil {
		return err
	}
	if ns.Launching() {
		return errLaunching
	}
	failed := []error{ns.disconnect(ctx), r.opts.VMs.Clear(ctx, name)}
	for _, clean := range r.opts.Clean {
		failed = append(failed, clean(ctx, name))
	}
	failed = append(failed, ns.forget())
	r.mu.Lock()
	delete(r.spaces, name)
	if name == Default {
		r.spaces[Default] = newNamespace(r, Default)
	}
	r.mu.Unlock()
	return errs.Join(failed...)
}

// Close ends all that runs on this host. What other hosts have yet to be told
// is forgotten with it.
func (r *Registry) Close(ctx context.Context) error {
	return errs.Join(r.Clear(ctx, cluster.All), r.owed.forget())
}
