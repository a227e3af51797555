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

	"minimega/internal/errs"
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
	Host string // name of this host
	VMs  *vm.Manager
	// VLANs resolves what stands for a VLAN in a netspec.
	VLANs interface {
		Resolve(namespace, spec string) (vlan int, alias string, err error)
	}
	// NetDrivers tells which network devices a QEMU knows.
	NetDrivers func(ctx context.Context, qemu string) func(string) bool
	// Clean lists what other owners do when a namespace goes, in order, after
	// its VMs have gone.
	Clean []func(ctx context.Context, namespace string) error
	// Dir is where stored configurations are kept for a later daemon; "" for
	// nowhere.
	Dir string
	Log *slog.Logger
}

// Registry owns the namespaces of this host.
type Registry struct {
	opts Options

	mu     sync.Mutex // guards spaces
	spaces map[string]*Namespace
}

// NewRegistry returns a registry with the default namespace.
func NewRegistry(opts Options) *Registry {
	r := &Registry{opts: opts, spaces: map[string]*Namespace{}}
	r.spaces[Default] = newNamespace(r, Default)
	return r
}

// Get returns a namespace, making it if needed. The error is ErrName.
func (r *Registry) Get(name string) (*Namespace, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ns := r.spaces[name]
	if ns == nil {
		ns = newNamespace(r, name)
		r.spaces[name] = ns
	}
	return ns, nil
}

// Names returns the names of the namespaces, sorted.
func (r *Registry) Names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.spaces))
}

// Clear ends all that runs in a namespace and forgets it; `all` means every
// one. The default namespace is made again at once.
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
		return errs.New(errs.State, "scheduler still running for namespace")
	}
	failed := []error{r.opts.VMs.Clear(ctx, name)}
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
