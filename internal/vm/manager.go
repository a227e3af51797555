package vm

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// Network is what VMs need of the owner of ports.
type Network interface {
	Create(ctx context.Context, specs []network.PortSpec) ([]network.Port, error)
	Delete(ctx context.Context, names ...string) error
	Release(ctx context.Context, names ...string) error
	Connect(ctx context.Context, name, bridge string, vlan int) error
	Disconnect(ctx context.Context, name string) error
	Addresses(name string) (ip4, ip6 string)
}

// Options is what a Manager is made of.
type Options struct {
	Base    string // directory of the instance directories
	Host    string // name of this host, for `vm info`
	Engines []Engine
	Network Network
	// VLANName prints a VLAN for readers in a namespace.
	VLANName func(namespace string, vlan int) string
	// Parallel bounds how many launches run at once.
	Parallel int
	// OnEnd is told when a machine's process has ended, before the VM
	// changes its state.
	OnEnd func(*VM)
	// OnFlush is told before a VM is forgotten and its taps go.
	OnFlush func(context.Context, *VM) error
	Log     *slog.Logger
}

// Manager owns the VMs of this host.
type Manager struct {
	opts     Options
	engines  map[Type]Engine
	slots    chan struct{} // tokens of launches under way
	closing  chan struct{}
	watchers sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	vms    map[int]*VM
	names  map[string]*VM // by namespace//name
	nextID int
	lost   []Lost
}

// NewManager returns a manager without VMs. IDs start at firstID.
func NewManager(opts Options, firstID int) *Manager {
	m := &Manager{
		opts: opts, engines: map[Type]Engine{}, slots: make(chan struct{}, max(1, opts.Parallel)),
		closing: make(chan struct{}), vms: map[int]*VM{}, names: map[string]*VM{}, nextID: firstID,
	}
	for _, e := range opts.Engines {
		m.engines[e.Type()] = e
	}
	return m
}

func nameKey(namespace, name string) string { return namespace + "//" + name }

// List returns the VMs of a namespace ("" for all), by ID.
func (m *Manager) List(namespace string) []*VM {
	m.mu.Lock()
	vms := make([]*VM, 0, len(m.vms))
	for _, v := range m.vms {
		if namespace == "" || v.Namespace == namespace {
			vms = append(vms, v)
		}
	}
	m.mu.Unlock()
	slices.SortFunc(vms, func(a, b *VM) int { return cmp.Compare(a.ID, b.ID) })
	return vms
}

// Find returns the VM that a name, ID or UUID means in a namespace. The error
// for an unknown one is `vm not found: x`.
func (m *Manager) Find(namespace, which string) (*VM, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.findLocked(namespace, which); v != nil {
		return v, nil
	}
	for _, v := range m.vms {
		if v.UUID == strings.ToLower(which) && v.Namespace == namespace {
			return v, nil
		}
	}
	return nil, errs.New(errs.NotFound, "vm not found: %s", which)
}

// findLocked finds by name or ID. The caller holds mu.
func (m *Manager) findLocked(namespace, which string) *VM {
	if v := m.names[nameKey(namespace, which)]; v != nil {
		return v
	}
	if id, err := strconv.Atoi(which); err == nil {
		if v := m.vms[id]; v != nil && v.Namespace == namespace {
			return v
		}
	}
	return nil
}

// Exists reports whether a name is taken in a namespace, and HasUUID whether a
// UUID is taken on this host.
func (m *Manager) Exists(namespace, name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[nameKey(namespace, name)] != nil
}

// HasUUID reports whether a VM of this host has that UUID.
func (m *Manager) HasUUID(uuid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.vms {
		if v.UUID == uuid {
			return true
		}
	}
	return false
}

// Commit returns what the living VMs of this host take: virtual CPUs, MiB of
// memory, network interfaces, and how many they are.
func (m *Manager) Commit() (vcpus, memory, nics, count int) {
	for _, v := range m.List("") {
		v.mu.Lock()
		if v.state.Alive() {
			vcpus += int(v.config.VCPUs)
			memory += int(v.config.Memory)
			nics += len(v.config.Networks)
			count++
		}
		v.mu.Unlock()
	}
	return
}

// Types returns the types of VM that can be launched here.
func (m *Manager) Types() []Type {
	var ts []Type
	for t := range m.engines {
		ts = append(ts, t)
	}
	slices.Sort(ts)
	return ts
}

// Clear kills and flushes every VM of a namespace ("" for all).
func (m *Manager) Clear(ctx context.Context, namespace string) error {
	vms := m.List(namespace)
	err := each(ctx, vms, func(ctx context.Context, v *VM) error {
		if v.State().Alive() {
			return v.kill(ctx)
		}
		return nil
	})
	err = errs.Join(err, m.flush(ctx, vms))
	if s, ok := m.opts.Network.(settler); ok {
		err = errs.Join(err, s.Settle(ctx))
	}
	return err
}

// settler is a Network that removes what it was told to release, and what that
// was connected to, when it suits it best, or in Settle.
type settler interface {
	Settle(ctx context.Context) error
}

// Close lets go of all VMs without ending them, and waits for whoever watches them.
func (m *Manager) Close() {
	close(m.closing)
	m.watchers.Wait()
	for _, v := range m.List("") {
		if machine, err := v.Machine(); err == nil {
			_ = machine.Close() // on the way out nobody is left to tell
		}
	}
}

// wide is how many VMs an operation that mostly waits works on at once.
const wide = 64

// each runs do on every VM side by side and joins the errors in the order of vms.
func each(ctx context.Context, vms []*VM, do func(context.Context, *VM) error) error {
	if len(vms) == 1 { // the usual case needs nobody's help
		return errs.Join(errs.InVM(do(ctx, vms[0]), vms[0].Name))
	}
	failed := make([]error, len(vms))
	slots := make(chan struct{}, wide)
	var wg sync.WaitGroup
	for i, v := range vms {
		slots <- struct{}{}
		wg.Go(func() {
			failed[i] = errs.InVM(do(ctx, v), v.Name)
			<-slots
		})
	}
	wg.Wait()
	return errs.Join(failed...)
}
