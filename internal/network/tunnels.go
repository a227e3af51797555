package network

import (
	"context"
	"errors"

	"minimega/internal/errs"
)

// spanning is the setting of a bridge that keeps loops of tunnels open.
const spanning = "rstp_enable"

// Tunnels returns the tunnels of a bridge, with their names.
func (m *Manager) Tunnels(bridge string) []Tunnel {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.bridges[bridge]
	if b == nil {
		return nil
	}
	var list []Tunnel
	for _, name := range b.tunnels {
		list = append(list, b.ways[name])
	}
	return list
}

// Linked gives a bridge these tunnels, which lead to bridges on other hosts,
// besides those that it has: all of those that are missing, or none and an
// error. Before that it lets the bridge look for loops, if it can. Two tunnels
// are the same if kind, remote and key are. It returns the names in their order.
//
// Of the keys of VXLAN tunnels only the low 12 bits count, which no two of one
// host may have in common.
func (m *Manager) Linked(ctx context.Context, bridge string, tunnels []Tunnel) (names []string, err error) {
	if err := m.span(ctx, bridge); err != nil {
		return nil, err
	}
	var made []string
	for _, t := range tunnels {
		t.Remote, t.Name = t.Remote.Unmap(), ""
		name := m.tunnelLike(bridge, t)
		if name == "" {
			if name, err = m.Tunnel(ctx, bridge, t); err != nil {
				return nil, errors.Join(err, m.untunnelAll(context.WithoutCancel(ctx), bridge, made))
			}
			made = append(made, name)
		}
		names = append(names, name)
	}
	return names, nil
}

// Unlinked takes those of these tunnels that there are off a bridge.
func (m *Manager) Unlinked(ctx context.Context, bridge string, tunnels []Tunnel) error {
	var names []string
	for _, t := range tunnels {
		t.Remote, t.Name = t.Remote.Unmap(), ""
		if name := m.tunnelLike(bridge, t); name != "" {
			names = append(names, name)
		}
	}
	return m.untunnelAll(ctx, bridge, names)
}

func (m *Manager) untunnelAll(ctx context.Context, bridge string, names []string) error {
	var failed []error
	for _, name := range names {
		if err := m.Untunnel(ctx, bridge, name); !errors.Is(err, errs.NotFound) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// tunnelLike returns the name of the tunnel that leads where t does, or "".
func (m *Manager) tunnelLike(bridge string, t Tunnel) string {
	for _, has := range m.Tunnels(bridge) {
		name := has.Name
		if has.Name = ""; has == t {
			return name
		}
	}
	return ""
}

// span turns the spanning tree on, where the datapath has one.
func (m *Manager) span(ctx context.Context, bridge string) error {
	err := m.ConfigureBridge(ctx, bridge, spanning, "true")
	if errors.Is(err, errs.Unsupported) {
		m.opts.Log.Warn("the tunnels of this bridge may make a loop", "bridge", bridge, "err", err)
		return nil
	}
	return err
}
