package network

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"minimega/internal/errs"
)

// bridge is what the manager knows of one; guarded by Manager.mu.
type bridge struct {
	preexisting bool
	trunks      []string
	tunnels     []string
	config      map[string]string
	ways        map[string]Tunnel // where the tunnels lead, by name
}

// BridgeInfo describes a bridge.
type BridgeInfo struct {
	Name        string
	Preexisting bool // there before us: never removed
	VLANs       []int
	Trunks      []string // interfaces of the host
	Tunnels     []string // names of tunnel devices
	Config      map[string]string
}

// EnsureBridge makes a bridge known, if it is not yet.
func (m *Manager) EnsureBridge(ctx context.Context, name string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	if err := checkLinkName("bridge", name); err != nil {
		return err
	}
	if err := m.ensure(ctx, []PortSpec{{Bridge: name}}); err != nil {
		return err
	}
	m.keep()
	return nil
}

// ensure makes the bridges of the specs known.
func (m *Manager) ensure(ctx context.Context, specs []PortSpec) error {
	done := map[string]bool{"": true}
	for _, s := range specs {
		if done[s.Bridge] {
			continue
		}
		done[s.Bridge] = true
		m.mu.Lock()
		known := m.bridges[s.Bridge] != nil
		m.mu.Unlock()
		if known {
			continue
		}
		there, err := m.dp.Preexisting(ctx, s.Bridge)
		if err != nil {
			return err
		}
		m.mu.Lock()
		if m.bridges[s.Bridge] == nil {
			m.bridges[s.Bridge] = &bridge{preexisting: there, config: map[string]string{}, ways: map[string]Tunnel{}}
		}
		m.mu.Unlock()
		m.changed()
	}
	return nil
}

// Bridges describes all bridges, by name.
func (m *Manager) Bridges() []BridgeInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	vlans := map[string]map[int]bool{}
	for _, p := range m.ports {
		if p.VLAN == Disconnected {
			continue
		}
		if vlans[p.Bridge] == nil {
			vlans[p.Bridge] = map[int]bool{}
		}
		vlans[p.Bridge][p.VLAN] = true
	}
	var list []BridgeInfo
	for _, name := range slices.Sorted(maps.Keys(m.bridges)) {
		b := m.bridges[name]
		list = append(list, BridgeInfo{
			Name: name, Preexisting: b.preexisting, VLANs: slices.Sorted(maps.Keys(vlans[name])),
			Trunks: slices.Clone(b.trunks), Tunnels: slices.Clone(b.tunnels), Config: maps.Clone(b.config),
		})
	}
	return list
}

func noBridge(name string) error { return errs.New(errs.NotFound, "bridge not found: %s", name) }

// DestroyBridge removes a bridge that no port is on, with its trunks and tunnels.
func (m *Manager) DestroyBridge(ctx context.Context, name string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	m.mu.Lock()
	known := m.bridges[name] != nil
	users := m.usersLocked(name)
	m.mu.Unlock()
	if !known {
		return noBridge(name)
	}
	if len(users) > 0 {
		return errs.WithRemedy(errs.New(errs.State, "bridge %s is in use by %s", name, strings.Join(users, ", ")),
			"disconnect or delete these first")
	}
	if err := m.dp.Destroy(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	delete(m.bridges, name)
	m.mu.Unlock()
	m.changed()
	m.keep()
	return nil
}

// usersLocked names ports on a bridge, not more than a reader wants to see.
func (m *Manager) usersLocked(name string) []string {
	var users []string
	for _, p := range m.ports {
		if p.Bridge == name {
			users = append(users, p.Name)
		}
	}
	slices.Sort(users)
	const most = 5
	if len(users) > most {
		users = append(users[:most], fmt.Sprintf("%d more", len(users)-most))
	}
	return users
}

// edit runs f, which does something to a bridge that is made known if needed,
// and then notes it. The note runs under the lock.
func (m *Manager) edit(ctx context.Context, name string, f func() (note func(*bridge), err error)) error {
	if err := m.EnsureBridge(ctx, name); err != nil {
		return err
	}
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	note, err := f()
	if err != nil {
		return err
	}
	m.mu.Lock()
	if b := m.bridges[name]; b != nil {
		note(b)
	}
	m.mu.Unlock()
	m.changed()
	m.keep()
	return nil
}

// ConfigureBridge sets a property; the datapath knows which there are.
func (m *Manager) ConfigureBridge(ctx context.Context, name, key, value string) error {
	c, ok := m.dp.(Configurer)
	if !ok {
		return unsupported("bridge config")
	}
	return m.edit(ctx, name, func() (func(*bridge), error) {
		err := c.Configure(ctx, name, key, value)
		return func(b *bridge) { b.config[key] = value }, err
	})
}

// Trunk joins an interface of the host to a bridge, with all VLANs, tagged.
func (m *Manager) Trunk(ctx context.Context, name, iface string) error {
	t, ok := m.dp.(Trunker)
	if !ok {
		return unsupported("bridge trunk")
	}
	if err := checkLinkName("interface", iface); err != nil {
		return err
	}
	if m.has(name, iface, func(b *bridge) []string { return b.trunks }) {
		return errs.New(errs.Exists, "bridge already trunking to %s", iface)
	}
	return m.edit(ctx, name, func() (func(*bridge), error) {
		err := t.Trunk(ctx, name, iface)
		return func(b *bridge) { b.trunks = append(b.trunks, iface) }, err
	})
}

// Untrunk is the way back of Trunk.
func (m *Manager) Untrunk(ctx context.Context, name, iface string) error {
	if err := m.known(name); err != nil {
		return err
	}
	t, ok := m.dp.(Trunker)
	if !ok || !m.has(name, iface, func(b *bridge) []string { return b.trunks }) {
		return errs.New(errs.NotFound, "unknown trunk: %s", iface)
	}
	return m.edit(ctx, name, func() (func(*bridge), error) {
		err := t.Untrunk(ctx, name, iface)
		return func(b *bridge) { b.trunks = without(b.trunks, iface) }, err
	})
}

// Tunnel joins a bridge with one on another host and returns the name of the
// tunnel.
func (m *Manager) Tunnel(ctx context.Context, name string, t Tunnel) (tunnel string, err error) {
	tn, ok := m.dp.(Tunneler)
	if !ok {
		return "", unsupported("bridge tunnel")
	}
	if t.Kind != "vxlan" && t.Kind != "gre" {
		return "", errs.New(errs.Invalid, "unknown kind of tunnel: %q (vxlan or gre)", t.Kind)
	}
	if !t.Remote.IsValid() || t.Remote == netip.IPv4Unspecified() || t.Remote == netip.IPv6Unspecified() {
		return "", errs.New(errs.Invalid, "a tunnel needs the address of its other end")
	}
	err = m.edit(ctx, name, func() (func(*bridge), error) {
		tunnel, err = tn.Tunnel(ctx, name, t)
		return func(b *bridge) {
			t.Name = tunnel
			b.tunnels = append(b.tunnels, tunnel)
			b.ways[tunnel] = t
		}, err
	})
	return tunnel, err
}

// Untunnel removes the tunnel of this name from a bridge.
func (m *Manager) Untunnel(ctx context.Context, name, tunnel string) error {
	if err := m.known(name); err != nil {
		return err
	}
	tn, ok := m.dp.(Tunneler)
	if !ok || !m.has(name, tunnel, func(b *bridge) []string { return b.tunnels }) {
		return errs.New(errs.NotFound, "unknown tunnel: %s", tunnel)
	}
	return m.edit(ctx, name, func() (func(*bridge), error) {
		err := tn.Untunnel(ctx, name, tunnel)
		return func(b *bridge) {
			b.tunnels = without(b.tunnels, tunnel)
			delete(b.ways, tunnel)
		}, err
	})
}

func (m *Manager) known(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bridges[name] == nil {
		return noBridge(name)
	}
	return nil
}

// has reports whether a list of a bridge holds item.
func (m *Manager) has(name, item string, list func(*bridge) []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.bridges[name]
	return b != nil && slices.Contains(list(b), item)
}

func without(list []string, item string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == item })
}

// Links lists the devices on which all frames of a bridge can be watched, one
// per VLAN. The channel is closed when the answer may have changed.
func (m *Manager) Links(bridge string) ([]Link, <-chan struct{}) { return m.dp.Links(bridge) }

// tapsText renders the file "taps": the host taps.
func (m *Manager) tapsText() []byte {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "Bridge\tTap\tVLAN")
	for _, p := range m.Ports() {
		if p.Kind == Host {
			fmt.Fprintf(w, "%s\t%s\t%s\n", p.Bridge, p.Name, m.opts.VLAN(p.VLAN))
		}
	}
	_ = w.Flush() // a bytes.Buffer does not fail
	return b.Bytes()
}

// bridgesText renders the file "bridges".
func (m *Manager) bridgesText() []byte {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "Bridge\tExisted before minimega\tActive VLANS")
	for _, i := range m.Bridges() {
		fmt.Fprintf(w, "%s\t%t\t%v\n", i.Name, i.Preexisting, i.VLANs)
	}
	_ = w.Flush()
	return b.Bytes()
}
