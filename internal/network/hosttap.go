package network

import (
	"context"
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
