package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"minimega/internal/host"
)

// recordName is the file, in the base directory, of what a later daemon cannot
// find in the kernel or with the VMs.
const recordName = "network.json"

const maxRecord = 16 << 20 // bytes

// record is the content of that file.
type record struct {
	HostTaps []PortSpec
	Bridges  []bridgeRecord
	Mirrors  []Mirror
	Overlay  *Overlay                `json:",omitempty"`
	Peers    map[string][]netip.Addr `json:",omitempty"` // by namespace
}

type bridgeRecord struct {
	Name        string
	Preexisting bool
	Trunks      []string          `json:",omitempty"`
	Tunnels     []Tunnel          `json:",omitempty"`
	Config      map[string]string `json:",omitempty"`
}

// recordText renders the file.
func (m *Manager) recordText() []byte {
	r := record{Mirrors: m.Mirrors()}
	for _, p := range m.Ports() {
		if p.Kind == Host {
			r.HostTaps = append(r.HostTaps, p.PortSpec)
		}
	}
	m.mu.Lock()
	if m.overlays.on {
		r.Overlay, r.Peers = new(m.overlays.conf), maps.Clone(m.overlays.peers)
	}
	for _, name := range slices.Sorted(maps.Keys(m.bridges)) {
		b := m.bridges[name]
		o := bridgeRecord{Name: name, Preexisting: b.preexisting, Trunks: slices.Clone(b.trunks), Config: maps.Clone(b.config)}
		for _, t := range b.tunnels {
			o.Tunnels = append(o.Tunnels, b.ways[t])
		}
		r.Bridges = append(r.Bridges, o)
	}
	m.mu.Unlock()
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil { // plain data always marshals
		return []byte(err.Error())
	}
	return append(text, '\n')
}

// keep returns when what a later daemon needs is in the file: it comes before
// the answer to whoever changed it.
func (m *Manager) keep() {
	if m.record == nil {
		return
	}
	if err := m.record.Flush(); err != nil && !errors.Is(err, os.ErrClosed) {
		m.opts.Log.Error("cannot write the state of the network", "err", err)
	}
}

func readRecord(base string) (*record, error) {
	path := filepath.Join(base, recordName)
	var r record
	if _, err := host.ReadJSON(path, maxRecord, &r); err != nil {
		return &record{}, err
	}
	return &r, nil
}

// Adopt takes over what an earlier daemon on this base directory left: the
// ports given, which are those of VMs, and host taps, bridges and mirrors as
// its file says. All else that it made is removed; removed says what. It must
// be the first call. Failures concern single things, and leave others alone.
func (m *Manager) Adopt(ctx context.Context, vms []PortSpec) (removed []string, err error) {
	r, bad := readRecord(m.opts.Base)
	return m.adopt(ctx, r, vms, bad)
}

// Discard removes all that an earlier daemon on this base directory left, and
// returns a line for each: what its file names, and the devices that were there.
// A file that cannot be read names nothing.
func (m *Manager) Discard(ctx context.Context) (removed []string, err error) {
	r, _ := readRecord(m.opts.Base)
	devices, err := m.adopt(ctx, &record{}, nil, nil)
	if err == nil {
		removed = r.lines()
	}
	for _, name := range devices {
		removed = append(removed, "interface "+name)
	}
	return removed, err
}

// lines says in words what the record holds. Bridges that were there before us
// stay, and what joined them with others goes.
func (r *record) lines() (lines []string) {
	for _, x := range r.Mirrors {
		lines = append(lines, "mirror from "+x.From+" to "+x.To)
	}
	for _, p := range r.HostTaps {
		lines = append(lines, "host tap "+p.Name+" of namespace "+p.Namespace)
	}
	for _, b := range r.Bridges {
		for _, iface := range b.Trunks {
			lines = append(lines, "trunk of bridge "+b.Name+" to "+iface)
		}
		for _, t := range b.Tunnels {
			lines = append(lines, fmt.Sprintf("%s tunnel %s of bridge %s to %s", t.Kind, t.Name, b.Name, t.Remote))
		}
		if !b.Preexisting {
			lines = append(lines, "bridge "+b.Name)
		}
	}
	return lines
}

func (m *Manager) adopt(ctx context.Context, r *record, vms []PortSpec, bad error) (removed []string, err error) {
	a, ok := m.dp.(Adopter)
	if !ok {
		return nil, nil
	}
	if err := m.begin(); err != nil {
		return nil, err
	}
	specs, failed := complete(append(slices.Clone(r.HostTaps), vms...))
	failed = append(failed, bad)
	m.mu.Lock()
	for _, b := range r.Bridges {
		if checkLinkName("bridge", b.Name) == nil {
			m.bridges[b.Name] = &bridge{preexisting: b.Preexisting, config: map[string]string{}, ways: map[string]Tunnel{}}
		}
	}
	m.mu.Unlock()
	failed = append(failed, m.ensure(ctx, specs))
	ports, removed, err := a.Adopt(ctx, specs)
	failed = append(failed, err)
	m.register(ports)
	failed = append(failed, missing(specs, ports))
	m.ops.Done()
	for _, b := range r.Bridges {
		failed = append(failed, m.restoreBridge(ctx, b))
	}
	for _, x := range r.Mirrors {
		failed = append(failed, m.restoreMirror(ctx, x))
	}
	failed = append(failed, m.restoreOverlay(ctx, r)) // last: it must know of trunks and tunnels
	m.changed()
	m.keep()
	return removed, errors.Join(failed...)
}

// complete checks specs that come from a file.
func complete(specs []PortSpec) (good []PortSpec, failed []error) {
	for _, s := range specs {
		kind := s.Kind
		if kind == Container { // its namespace is needed only to make it
			s.Kind = Tap
		}
		err := s.complete()
		s.Kind = kind
		if err == nil && s.Name == "" {
			err = errors.New("a port without a name")
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		good = append(good, s)
	}
	return good, failed
}

// missing names the ports whose devices have gone.
func missing(specs []PortSpec, found []Port) error {
	there := map[string]bool{}
	for _, p := range found {
		there[p.Name] = true
	}
	var lost []string
	for _, s := range specs {
		if !there[s.Name] {
			lost = append(lost, fmt.Sprintf("%s (%s)", s.Name, s.Owner))
		}
	}
	if lost == nil {
		return nil
	}
	return fmt.Errorf("interfaces of an earlier minimega have gone: %s", strings.Join(lost, ", "))
}

func (m *Manager) restoreBridge(ctx context.Context, b bridgeRecord) error {
	var failed []error
	for _, key := range slices.Sorted(maps.Keys(b.Config)) {
		failed = append(failed, m.ConfigureBridge(ctx, b.Name, key, b.Config[key]))
	}
	for _, iface := range b.Trunks {
		failed = append(failed, m.Trunk(ctx, b.Name, iface))
	}
	for _, t := range b.Tunnels {
		_, err := m.Tunnel(ctx, b.Name, t)
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// restoreMirror makes a mirror anew: the kernel may have half of the old one.
func (m *Manager) restoreMirror(ctx context.Context, x Mirror) error {
	src, ok1 := m.Port(x.From)
	dst, ok2 := m.Port(x.To)
	mirrorer, ok3 := m.dp.(Mirrorer)
	if !ok1 || !ok2 || !ok3 {
		return fmt.Errorf("the mirror from %s to %s has gone with its taps", x.From, x.To)
	}
	return errors.Join(mirrorer.Unmirror(ctx, src, dst), m.Mirror(ctx, x.From, x.To))
}
