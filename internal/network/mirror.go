package network

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"minimega/internal/errs"
)

// Mirror says that a tap gets a copy of all frames of another.
type Mirror struct{ From, To string }

// Mirrors returns all mirrors, by destination.
func (m *Manager) Mirrors() []Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Mirror
	for to, from := range m.mirrors {
		list = append(list, Mirror{from, to})
	}
	slices.SortFunc(list, func(a, b Mirror) int { return cmp.Compare(a.To, b.To) })
	return list
}

// Mirror copies all frames of one tap to another, both on some bridge, until
// Unmirror or until one of them is deleted.
func (m *Manager) Mirror(ctx context.Context, from, to string) error {
	mirrorer, ok := m.dp.(Mirrorer)
	if !ok {
		return unsupported("tap mirror")
	}
	if from == to {
		return errs.New(errs.Invalid, "cannot mirror tap to itself")
	}
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	if err := errors.Join(m.mirrorable(from, "source"), m.mirrorable(to, "destination")); err != nil {
		return err
	}
	taken, err := m.take(ctx, []string{from, to})
	if err != nil {
		return err
	}
	defer give(taken)
	src, dst, err := m.addMirror(from, to)
	if err != nil {
		return err
	}
	if err := mirrorer.Mirror(ctx, src, dst); err != nil {
		m.dropMirror(to)
		return err
	}
	m.keep()
	return nil
}

func (m *Manager) mirrorable(name, role string) error {
	if p, ok := m.Port(name); !ok || p.VLAN == Disconnected {
		return errs.New(errs.NotFound, "%s tap is not on bridge", role)
	}
	return nil
}

// addMirror notes a mirror between two ports that the caller has taken. There
// are no chains: two mirrors in a ring would copy for ever.
func (m *Manager) addMirror(from, to string) (src, dst Port, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mirrors[to] != "" {
		return src, dst, errs.New(errs.Exists, "destination tap is already a mirror")
	}
	if m.mirrors[from] != "" {
		return src, dst, errs.New(errs.Invalid, "source tap is a mirror itself")
	}
	for _, source := range m.mirrors {
		if source == to {
			return src, dst, errs.New(errs.Invalid, "destination tap is mirrored itself")
		}
	}
	m.mirrors[to] = from
	return m.ports[from].Port, m.ports[to].Port, nil
}

func (m *Manager) dropMirror(to string) {
	m.mu.Lock()
	delete(m.mirrors, to)
	m.mu.Unlock()
}

// Unmirror ends the mirror that has this destination.
func (m *Manager) Unmirror(ctx context.Context, to string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	m.mu.Lock()
	known := m.mirrors[to] != ""
	m.mu.Unlock()
	if !known {
		return errs.New(errs.NotFound, "not a valid mirror")
	}
	defer m.keep()
	return m.endMirrors(ctx, func(x Mirror) bool { return x.To == to })
}

// endMirrors ends those that which picks.
func (m *Manager) endMirrors(ctx context.Context, which func(Mirror) bool) error {
	mirrorer, ok := m.dp.(Mirrorer)
	if !ok {
		return nil
	}
	var failed []error
	for _, x := range m.Mirrors() {
		src, ok1 := m.Port(x.From)
		dst, ok2 := m.Port(x.To)
		if !which(x) || !ok1 || !ok2 {
			continue
		}
		if err := mirrorer.Unmirror(ctx, src, dst); err != nil {
			failed = append(failed, err)
			continue
		}
		m.dropMirror(x.To)
	}
	return errors.Join(failed...)
}
