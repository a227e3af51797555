package network

import (
	"context"
	"net/netip"
	"slices"

	"minimega/internal/errs"
)

// HostTaps returns the host taps of a namespace, by name.
func (m *Manager) HostTaps(namespace string) []Port {
	return slices.DeleteFunc(m.Ports(), func(p Port) bool {
		return p.Kind != Host || p.Namespace != namespace
	})
}

// DeleteHostTap removes a host tap of a namespace, or with the name "all", all of them.
func (m *Manager) DeleteHostTap(ctx context.Context, namespace, name string) error {
	var names []string
	if name == "all" {
		for _, p := range m.HostTaps(namespace) {
			names = append(names, p.Name)
		}
		return m.Delete(ctx, names...)
	}
	p, ok := m.Port(name)
	switch {
	case !ok:
		return unknown(name)
	case p.Kind != Host:
		return errs.New(errs.Invalid, "not a host tap: %s", name)
	case p.Namespace != namespace:
		return errs.New(errs.Invalid, "not a host tap in active namespace")
	}
	return m.Delete(ctx, name)
}

// AddIP gives an address such as 10.0.0.1/24 to a host tap.
func (m *Manager) AddIP(ctx context.Context, name, cidr string) error {
	addr, err := netip.ParsePrefix(cidr)
	if err != nil {
		return errs.WithRemedy(errs.New(errs.Invalid, "invalid address: %q", cidr), "write it with its prefix length: 10.0.0.1/24")
	}
	return m.onHostTap(ctx, name, func(p Port) error { return m.dp.AddIP(ctx, p, addr) })
}

// DHCP gets an address for a host tap, and returns it. It tries until ctx ends.
func (m *Manager) DHCP(ctx context.Context, name string) (addr netip.Prefix, err error) {
	leaser, ok := m.dp.(Leaser)
	if !ok {
		return addr, unsupported("DHCP")
	}
	err = m.onHostTap(ctx, name, func(p Port) error {
		addr, err = leaser.DHCP(ctx, p)
		return err
	})
	return addr, err
}

func unsupported(what string) error {
	return errs.New(errs.Unsupported, "%s is not supported by this datapath", what)
}

func (m *Manager) onHostTap(ctx context.Context, name string, f func(Port) error) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	p, ok := m.Port(name)
	if !ok {
		return unknown(name)
	}
	if p.Kind != Host {
		return errs.New(errs.Invalid, "not a host tap: %s", name)
	}
	return f(p)
}
