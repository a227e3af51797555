package vmtest

import (
	"context"
	"fmt"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// Network keeps a picture of the ports that there are. The zero value is
// ready. It fails on a port that it does not know.
type Network struct {
	mu    sync.Mutex // guards the fields below
	ports map[string]network.PortSpec
	next  int
	// FailAt makes the creation of a port on this VLAN fail; 0 never does.
	FailAt int
}

// Create makes ports, all or none.
func (n *Network) Create(_ context.Context, specs []network.PortSpec) ([]network.Port, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range specs {
		if n.FailAt != 0 && s.VLAN == n.FailAt {
			return nil, errs.New(errs.Resource, "no port on VLAN %d", s.VLAN)
		}
	}
	if n.ports == nil {
		n.ports = map[string]network.PortSpec{}
	}
	ports := make([]network.Port, len(specs))
	for i, s := range specs {
		s.Name = fmt.Sprintf("mega_tap%d", n.next)
		n.next++
		n.ports[s.Name] = s
		ports[i] = network.Port{PortSpec: s}
	}
	return ports, nil
}

// Delete removes ports.
func (n *Network) Delete(_ context.Context, names ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if _, ok := n.ports[name]; !ok {
			return errs.New(errs.NotFound, "unknown tap: %s", name)
		}
		delete(n.ports, name)
	}
	return nil
}

// Release removes ports.
func (n *Network) Release(ctx context.Context, names ...string) error { return n.Delete(ctx, names...) }

// Connect moves a port.
func (n *Network) Connect(_ context.Context, name, bridge string, vlan int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.ports[name]
	if !ok {
		return errs.New(errs.NotFound, "unknown tap: %s", name)
	}
	p.Bridge, p.VLAN = bridge, vlan
	n.ports[name] = p
	return nil
}

// Disconnect takes a port off its VLAN.
func (n *Network) Disconnect(ctx context.Context, name string) error {
	return n.Connect(ctx, name, "", network.Disconnected)
}

// Addresses knows none.
func (n *Network) Addresses(string) (ip4, ip6 string) { return "", "" }

// Port returns what is known of a port.
func (n *Network) Port(name string) (network.PortSpec, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.ports[name]
	return p, ok
}

// Len returns how many ports there are.
func (n *Network) Len() int { n.mu.Lock(); defer n.mu.Unlock(); return len(n.ports) }

// Has reports whether there is a port of this name.
func (n *Network) Has(name string) bool { _, ok := n.Port(name); return ok }
