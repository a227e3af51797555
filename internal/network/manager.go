package network

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/statefile"
)

// Options of a Manager.
type Options struct {
	Base string // directory of the files "taps" and "bridges"; "" writes none
	// VLAN names a number in the file "taps", as in "namespace//alias". nil: the number.
	VLAN func(int) string
	Log  *slog.Logger
}

// Manager owns ports and bridges. Methods may be called by any goroutine.
type Manager struct {
	dp      Datapath
	opts    Options
	snooper *snooper
	files   []*statefile.File
	record  *statefile.File // one of files, for a later daemon; nil without a base

	ops     sync.WaitGroup // calls that change something
	joining chan struct{}  // whoever fits an overlay holds it

	mu       sync.Mutex // guards the fields below; never held over I/O
	closed   bool
	ports    map[string]*port
	reserved map[string]bool // names of ports on their way
	bridges  map[string]*bridge
	mirrors  map[string]string // source by destination
	leaving  leaving           // see Release
	overlays overlays
}

// port is a port and the right to change it, which is a token in turn.
type port struct {
	Port // guarded by Manager.mu
	turn chan struct{}
	gone bool // deleted; guarded by turn
}

// New takes charge of dp, which it closes in Close. It snoops addresses in the
// network namespace of the calling thread.
func New(dp Datapath, opts Options) (*Manager, error) {
	if opts.VLAN == nil {
		opts.VLAN = strconv.Itoa
	}
	m := &Manager{joining: make(chan struct{}, 1), dp: dp, opts: opts, ports: map[string]*port{}, reserved: map[string]bool{}, bridges: map[string]*bridge{}, mirrors: map[string]string{}}
	var err error
	if m.snooper, err = newSnooper(opts.Log); err != nil {
		return nil, err
	}
	if opts.Base != "" {
		m.record = statefile.New(filepath.Join(opts.Base, recordName), m.recordText, opts.Log)
		m.files = []*statefile.File{
			m.record,
			statefile.New(filepath.Join(opts.Base, "taps"), m.tapsText, opts.Log),
			statefile.New(filepath.Join(opts.Base, "bridges"), m.bridgesText, opts.Log),
		}
	}
	return m, nil
}

func (m *Manager) changed() {
	for _, f := range m.files {
		f.Changed()
	}
}

// Flush returns when the files show the present state.
func (m *Manager) Flush() error {
	var failed []error
	for _, f := range m.files {
		failed = append(failed, f.Flush())
	}
	return errors.Join(failed...)
}

// begin admits a call that changes something; the caller ends it with m.ops.Done.
func (m *Manager) begin() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errs.New(errs.State, "the network is being shut down")
	}
	m.ops.Add(1)
	return nil
}

// take gets the right to change the ports of these names, which must exist, all
// or none. The caller gives it back with give.
func (m *Manager) take(ctx context.Context, names []string) ([]*port, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names))) // one order, so that no two wait for each other
	var taken []*port
	for _, name := range names {
		m.mu.Lock()
		p := m.ports[name]
		m.mu.Unlock()
		var err error
		if p == nil {
			err = unknown(name)
		} else {
			err = p.take(ctx, name)
		}
		if err != nil {
			give(taken)
			return nil, err
		}
		taken = append(taken, p)
	}
	return taken, nil
}

func (p *port) take(ctx context.Context, name string) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.gone {
		give([]*port{p})
		return unknown(name)
	}
	return nil
}

func give(ports []*port) {
	for _, p := range ports {
		<-p.turn
	}
}

func unknown(name string) error { return errs.New(errs.NotFound, "unknown tap: %s", name) }

// Delete removes ports in one go. If one of the names is unknown it removes none.
func (m *Manager) Delete(ctx context.Context, names ...string) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	taken, err := m.take(ctx, names)
	if err != nil {
		return err
	}
	defer give(taken)
	return m.remove(ctx, taken)
}

// remove deletes ports that the caller has taken.
func (m *Manager) remove(ctx context.Context, taken []*port) error {
	ports, err := m.unhook(ctx, taken)
	if err != nil {
		return err
	}
	if err := m.dp.Delete(ctx, ports); err != nil {
		return err
	}
	m.forget(taken, ports)
	return nil
}

// unhook ends the mirrors of ports that the caller has taken, and returns them
// as they are now.
func (m *Manager) unhook(ctx context.Context, taken []*port) ([]Port, error) {
	var ports []Port
	going := map[string]bool{}
	m.mu.Lock()
	for _, p := range taken {
		ports = append(ports, p.Port)
		going[p.Name] = true
	}
	m.mu.Unlock()
	return ports, m.endMirrors(ctx, func(x Mirror) bool { return going[x.From] || going[x.To] })
}

// forget takes ports out of all that is known.
func (m *Manager) forget(taken []*port, ports []Port) {
	m.mu.Lock()
	for _, p := range taken {
		p.gone = true
		if m.ports[p.Name] == p { // the name may have been given to a new device already
			delete(m.ports, p.Name)
		}
	}
	m.mu.Unlock()
	host := false
	for _, p := range ports {
		m.snooper.forget(p.Index)
		host = host || p.Kind == Host
	}
	m.changed()
	m.joinPorts(ports...)
	if host {
		m.keep()
	}
}

// Connect moves a port to a VLAN of a bridge ("" for DefaultBridge).
func (m *Manager) Connect(ctx context.Context, name, bridge string, vlan int) error {
	bridge = cmp.Or(bridge, DefaultBridge)
	err := checkLinkName("bridge", bridge)
	if err == nil {
		err = checkVLAN(vlan)
	}
	if err == nil && vlan == Disconnected {
		err = errs.New(errs.Invalid, "invalid VLAN (0 <= vlan < 4096)")
	}
	if err != nil {
		return err
	}
	return m.move(ctx, name, bridge, vlan)
}

// Disconnect takes a port off its bridge. The device stays.
func (m *Manager) Disconnect(ctx context.Context, name string) error {
	return m.move(ctx, name, "", Disconnected)
}

func (m *Manager) move(ctx context.Context, name, bridge string, vlan int) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	taken, err := m.take(ctx, []string{name})
	if err != nil {
		return err
	}
	defer give(taken)
	if bridge != "" {
		if err := m.ensure(ctx, []PortSpec{{Bridge: bridge}}); err != nil {
			return err
		}
	}
	p := taken[0]
	m.mu.Lock()
	now := p.Port
	m.mu.Unlock()
	if err := m.dp.Move(ctx, now, bridge, vlan); err != nil {
		return err
	}
	m.mu.Lock()
	p.Bridge, p.VLAN, p.Alias = bridge, vlan, ""
	to := p.Port
	m.mu.Unlock()
	m.changed()
	m.joinPorts(now, to)
	return nil
}

// Port returns the port of this name.
func (m *Manager) Port(name string) (Port, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.ports[name]; p != nil {
		return p.Port, true
	}
	return Port{}, false
}

// Ports returns all ports, by name.
func (m *Manager) Ports() []Port {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Port, 0, len(m.ports))
	for _, p := range m.ports {
		list = append(list, p.Port)
	}
	slices.SortFunc(list, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// SetMAC says which MAC the NIC behind a tap has: only what it sends under that
// address counts in Addresses.
func (m *Manager) SetMAC(name, mac string) error {
	m.mu.Lock()
	p := m.ports[name]
	if p == nil {
		m.mu.Unlock()
		return unknown(name)
	}
	p.MAC = mac
	index := p.Index
	m.mu.Unlock()
	m.snooper.watch(index, mac)
	return nil
}

// Addresses returns the addresses last seen from the NIC behind a tap, "" if none.
func (m *Manager) Addresses(name string) (ip4, ip6 string) {
	p, ok := m.Port(name)
	if !ok {
		return "", ""
	}
	return m.snooper.addresses(p.Index)
}

// Counters reads the counters of the named ports, all at once. Unknown names
// are left out.
func (m *Manager) Counters(ctx context.Context, names ...string) (map[string]Counters, error) {
	all, err := m.dp.Counters(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	result := make(map[string]Counters, len(names))
	for _, name := range names {
		if p := m.ports[name]; p != nil {
			if c, ok := all[p.Index]; ok {
				result[name] = c
			}
		}
	}
	return result, nil
}

// Close removes all that this manager made and ends it. Calls under way are
// waited for, others fail.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	was := m.closed
	m.closed = true
	m.hurryLocked()
	m.mu.Unlock()
	if was {
		return nil
	}
	m.ops.Wait()
	failed := []error{m.snooper.close(), m.dp.Close(ctx)}
	m.mu.Lock()
	clear(m.ports)
	clear(m.bridges)
	clear(m.mirrors)
	m.mu.Unlock()
	m.changed()
	for _, f := range m.files {
		failed = append(failed, f.Close())
	}
	if m.record != nil { // nothing is left for anybody to adopt
		if err := os.Remove(filepath.Join(m.opts.Base, recordName)); !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
