package network

import (
	"cmp"
	"context"
	"slices"

	"minimega/internal/errs"
)

// Create makes ports and connects them: all of them in the order of the specs,
// or none and an error.
func (m *Manager) Create(ctx context.Context, specs []PortSpec) ([]Port, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	defer m.ops.Done()
	specs = slices.Clone(specs)
	for i := range specs {
		if err := specs[i].complete(); err != nil {
			return nil, err
		}
	}
	if err := m.reserve(specs); err != nil {
		return nil, err
	}
	defer m.unreserve(specs)
	if err := m.ensure(ctx, specs); err != nil {
		return nil, err
	}
	ports, err := m.dp.Create(ctx, specs)
	if err != nil {
		return nil, err
	}
	m.register(ports)
	m.joinPorts(ports...)
	if slices.ContainsFunc(ports, func(p Port) bool { return p.Kind == Host }) {
		m.keep()
	}
	return ports, nil
}

// complete checks a spec and fills in what it leaves out.
func (s *PortSpec) complete() error {
	if s.Name == "all" {
		return errs.New(errs.Invalid, "`all` is a reserved word -- cannot use for tap name")
	}
	if s.Name != "" {
		if err := checkLinkName("tap", s.Name); err != nil {
			return err
		}
	}
	switch s.Kind {
	case Tap, Host, Container:
	default:
		return errs.New(errs.Invalid, "unknown kind of port: %d", s.Kind)
	}
	if err := checkVLAN(s.VLAN); err != nil {
		return err
	}
	if s.VLAN == Disconnected {
		s.Bridge = ""
		return nil
	}
	s.Bridge = cmp.Or(s.Bridge, DefaultBridge)
	return checkLinkName("bridge", s.Bridge)
}

// reserve keeps the names for this caller until unreserve.
func (m *Manager) reserve(specs []PortSpec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, s := range specs {
		if s.Name == "" {
			continue
		}
		if m.ports[s.Name] != nil || m.reserved[s.Name] {
			m.unreserveLocked(specs[:i])
			return errs.New(errs.Exists, "tap already on bridge")
		}
		m.reserved[s.Name] = true
	}
	return nil
}

func (m *Manager) unreserve(specs []PortSpec) {
	m.mu.Lock()
	m.unreserveLocked(specs)
	m.mu.Unlock()
}

func (m *Manager) unreserveLocked(specs []PortSpec) {
	for _, s := range specs {
		delete(m.reserved, s.Name)
	}
}

func (m *Manager) register(ports []Port) {
	m.mu.Lock()
	for _, p := range ports {
		m.ports[p.Name] = &port{Port: p, turn: make(chan struct{}, 1)}
	}
	m.mu.Unlock()
	for _, p := range ports {
		m.snooper.watch(p.Index, p.MAC)
	}
	m.changed()
}
