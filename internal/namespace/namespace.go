package namespace

import (
	"context"
	"maps"
	"slices"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/internal/scheduler"
	"minimega/internal/vm"
)

// Namespace is one experiment.
type Namespace struct {
	Name     string
	registry *Registry
	turn     chan struct{}    // holds one token: the right to write what a later daemon is to know
	queued   *journal.Journal // keeps the queue

	mu       sync.Mutex // guards the fields below
	config   *vm.Config // never changed in place
	saved    map[string]*vm.Config
	hosts    []string
	load     scheduler.Metric
	limits   scheduler.Limits
	queueing bool
	queue    []*Group // never changed in place
	plan     bool     // the queue has been planned by a dry run
	unnamed  int      // next N of vm-N
	runs     []*Run
	capture  Capture
	bridges  map[string]tunnels // that `ns bridge` connected
	saving   SaveProgress       // of the last save
	refused  []refused          // launches that failed, the latest last
}

// Capture holds the settings of packet captures to come.
type Capture struct {
	Snaplen int // 0 for the default
	Filter  string
}

func newNamespace(r *Registry, name string) *Namespace {
	hosts := []string{r.host()}
	if peers := r.opts.Cluster.Peers(); len(peers) > 0 && name != Default {
		hosts = peers
	}
	return &Namespace{Name: name, registry: r, turn: make(chan struct{}, 1), queued: r.journal(name), config: vm.NewConfig(), saved: map[string]*vm.Config{},
		hosts: hosts, load: scheduler.CPUCommit, bridges: map[string]tunnels{}}
}

// Config returns the present configuration, which must not be changed.
func (n *Namespace) Config() *vm.Config { n.mu.Lock(); defer n.mu.Unlock(); return n.config }

// Edit changes a copy of the configuration and, if change succeeds, makes it
// the present one.
func (n *Namespace) Edit(change func(*vm.Config) error) error {
	if err := n.edit(change); err != nil {
		return err
	}
	n.keepPresent()
	return nil
}

func (n *Namespace) edit(change func(*vm.Config) error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.config.Clone()
	if err := change(c); err != nil {
		return err
	}
	n.config = c
	return nil
}

func (n *Namespace) setConfig(c *vm.Config) {
	n.mu.Lock()
	n.config = c
	n.mu.Unlock()
	n.keepPresent()
}

// SetNetworks reads netspecs into the configuration. Aliases get their VLAN now.
func (n *Namespace) SetNetworks(ctx context.Context, specs []string) error {
	nets, err := n.ParseNetworks(ctx, specs)
	if err != nil {
		return err
	}
	return n.Edit(func(c *vm.Config) error { c.Networks = nets; return nil })
}

// ParseNetworks reads netspecs and resolves their VLANs.
func (n *Namespace) ParseNetworks(ctx context.Context, specs []string) ([]vm.NetConfig, error) {
	o := &n.registry.opts
	isDriver := o.NetDrivers(ctx, n.Config().QemuPath)
	nets := make([]vm.NetConfig, 0, len(specs))
	for _, s := range specs {
		net, err := vm.ParseNet(s, isDriver)
		if err != nil {
			return nil, err
		}
		nets = append(nets, net)
	}
	for i := range nets { // only once all are well-formed, so that a typo allocates nothing
		if nets[i].Alias == "" {
			if err := n.claim(nets[i].VLAN); err != nil {
				return nil, err
			}
			continue
		}
		v, alias, err := o.VLANs.Resolve(n.Name, nets[i].Alias)
		if err != nil {
			return nil, err
		}
		nets[i].VLAN, nets[i].Alias = v, alias
	}
	return nets, nil
}

// Save stores a copy of the configuration under a name.
func (n *Namespace) Save(name string) {
	n.mu.Lock()
	n.saved[name] = n.config
	n.mu.Unlock()
	n.keep()
}

// Restore makes a stored configuration the present one.
func (n *Namespace) Restore(name string) error {
	c, err := n.savedConfig(name)
	if err != nil {
		return err
	}
	n.setConfig(c)
	return nil
}

func (n *Namespace) savedConfig(name string) (*vm.Config, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.saved[name]
	if c == nil {
		return nil, errs.New(errs.NotFound, "config %s does not exist", name)
	}
	return c, nil
}

// Saved returns the names of the stored configurations, sorted.
func (n *Namespace) Saved() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.saved))
}

// Clone takes the configuration of a VM over, without what belongs to that VM alone.
func (n *Namespace) Clone(ctx context.Context, which string) error {
	c, err := n.configOf(ctx, which)
	if err != nil {
		return err
	}
	c.UUID = ""
	delete(c.Tags, "error")
	specs := make([]string, len(c.Networks))
	for i, net := range c.Networks {
		specs[i] = net.Raw
	}
	if c.Networks, err = n.ParseNetworks(ctx, specs); err != nil {
		return err
	}
	for i := range c.Disks {
		c.Disks[i].SnapshotPath = ""
	}
	n.setConfig(c)
	return nil
}

// Capture returns the settings of captures.
func (n *Namespace) Capture() Capture { n.mu.Lock(); defer n.mu.Unlock(); return n.capture }

// SetCapture changes the settings of captures.
func (n *Namespace) SetCapture(c Capture) {
	n.mu.Lock()
	n.capture = c
	n.mu.Unlock()
	n.keepPresent()
}

// claim keeps a VLAN that was named by number out of the allocation of aliases.
func (n *Namespace) claim(v int) error {
	_, _, err := n.registry.opts.VLANs.Resolve(n.Name, itoa(v))
	return err
}
