package network

import (
	"context"
	"errors"
	"fmt"
)

// Renumbering says that a VLAN alias, "namespace//alias", has another number.
type Renumbering struct {
	Alias    string
	Old, New int
}

// Renumber moves all ports that were put on a VLAN by its alias from its old
// number to the new one, as they are: devices, addresses, mirrors and captures
// of them stay. Ports of the same number that were not made by that alias stay
// where they are. It goes on after a failure.
func (m *Manager) Renumber(ctx context.Context, moves []Renumbering) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	of := map[string]Renumbering{}
	var failed []error
	for _, r := range moves {
		if r.Alias == "" || checkVLAN(r.Old) != nil || checkVLAN(r.New) != nil {
			failed = append(failed, fmt.Errorf("malformed renumbering: %+v", r))
			continue
		}
		if earlier, ok := of[r.Alias]; ok && earlier.New == r.Old {
			r.Old = earlier.Old
		}
		of[r.Alias] = r
	}
	ctx = context.WithoutCancel(ctx) // half a VLAN helps nobody
	var all []Port
	for _, p := range m.Ports() {
		if r, ok := of[p.Alias]; ok && p.Alias != "" && p.VLAN == r.Old {
			touched, err := m.renumber(ctx, p.Name, r)
			failed = append(failed, err)
			all = append(all, touched...)
		}
	}
	m.changed()
	m.keep()
	m.joinPorts(all...)
	return errors.Join(failed...)
}

// renumber moves one port and returns it as it was and as it is.
func (m *Manager) renumber(ctx context.Context, name string, r Renumbering) ([]Port, error) {
	taken, err := m.take(ctx, []string{name})
	if err != nil {
		return nil, nil // deleted meanwhile
	}
	defer give(taken)
	p := taken[0]
	m.mu.Lock()
	was := p.Port
	m.mu.Unlock()
	if was.Alias != r.Alias || was.VLAN != r.Old {
		return nil, nil // moved by somebody else
	}
	if err := m.dp.Move(ctx, was, was.Bridge, r.New); err != nil {
		return nil, err
	}
	m.mu.Lock()
	p.VLAN = r.New
	is := p.Port
	m.mu.Unlock()
	return []Port{was, is}, nil
}
