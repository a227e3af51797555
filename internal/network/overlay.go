package network

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"minimega/internal/errs"
)

// OverlayPort is the UDP port of overlays on all hosts. It is not the usual one
// of VXLAN, so that a firewall can tell them from what else a host does.
const OverlayPort = 14789

const (
	maxCluster = 1 << 12
	maxPeers   = 4096 // of a namespace
)

// Overlay is how VLANs are joined with those of other hosts: frames travel as
// VXLAN, not encrypted, in UDP packets to OverlayPort, which are fragmented
// where the network between the hosts has an MTU under 1550, so that guests keep
// theirs of 1500.
type Overlay struct {
	Local     netip.Addr `json:",omitzero"` // from where to send; invalid: the kernel chooses
	ClusterID uint16     // below 4096; the same on all hosts that belong together, and on no others
}

// OverlayInfo describes the overlay of a VLAN.
type OverlayInfo struct {
	Bridge  string
	VLAN    int
	Remotes []netip.Addr
	Off     string // why there is none although there are remotes, or ""
	Err     error  // why it could not be made
}

// place is a VLAN of a bridge.
type place struct {
	bridge string
	vlan   int
}

// overlays is what the manager knows of joining VLANs; guarded by Manager.mu.
type overlays struct {
	on    bool
	ever  bool // some namespace has, or had, peers
	conf  Overlay
	peers map[string][]netip.Addr // by namespace
}

// SetOverlay says how VLANs are joined with those of other hosts. Before it none
// are. To say the same again does nothing.
func (m *Manager) SetOverlay(ctx context.Context, o Overlay) error {
	if o.ClusterID >= maxCluster {
		return errs.New(errs.Invalid, "invalid number of an overlay: %d (it is below %d)", o.ClusterID, maxCluster)
	}
	o.Local = o.Local.Unmap().WithZone("")
	return m.setOverlay(ctx, func() bool {
		same := m.overlays.on && m.overlays.conf == o
		m.overlays.on, m.overlays.conf = true, o
		return !same
	})
}

// SetPeers says on which other hosts VMs of a namespace may be, by their
// addresses. Every VLAN that ports of the namespace are in is joined with those
// hosts, now and later; none means that it is not. To say the same again does
// nothing.
func (m *Manager) SetPeers(ctx context.Context, namespace string, peers []netip.Addr) error {
	peers, err := hostAddresses(peers)
	if err != nil {
		return err
	}
	return m.setOverlay(ctx, func() bool {
		if slices.Equal(m.overlays.peers[namespace], peers) {
			return false
		}
		if m.overlays.peers == nil {
			m.overlays.peers = map[string][]netip.Addr{}
		}
		m.overlays.peers[namespace] = peers
		m.overlays.ever = m.overlays.ever || len(peers) > 0
		if len(peers) == 0 {
			delete(m.overlays.peers, namespace)
		}
		return true
	})
}

// setOverlay changes what is known, under the lock, and then what there is.
func (m *Manager) setOverlay(ctx context.Context, change func() bool) error {
	if err := m.begin(); err != nil {
		return err
	}
	defer m.ops.Done()
	m.mu.Lock()
	changed := change()
	var all []place
	for _, p := range m.ports {
		all = append(all, place{p.Bridge, p.VLAN})
	}
	m.mu.Unlock()
	if !changed {
		return nil
	}
	m.changed()
	m.keep()
	for _, o := range m.Overlays() { // also where no port is any more
		all = append(all, place{o.Bridge, o.VLAN})
	}
	return m.join(ctx, all, false)
}

// hostAddresses checks addresses and returns them in one form and order.
func hostAddresses(list []netip.Addr) ([]netip.Addr, error) {
	if len(list) > maxPeers {
		return nil, errs.New(errs.Invalid, "an overlay joins at most %d hosts", maxPeers)
	}
	var good []netip.Addr
	for _, a := range list {
		a = a.Unmap().WithZone("")
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == limitedBroadcast {
			return nil, errs.New(errs.Invalid, "not the address of a host: %s", a)
		}
		good = append(good, a)
	}
	slices.SortFunc(good, netip.Addr.Compare)
	return slices.Compact(good), nil
}

// Overlays describes the overlays, those too that are off.
func (m *Manager) Overlays() []OverlayInfo {
	if o, ok := m.dp.(Overlayer); ok {
		return o.Overlays()
	}
	return nil
}

// Peers returns the hosts of each namespace that has some.
func (m *Manager) Peers() map[string][]netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.overlays.peers) // the lists are never changed
}

// join fits the overlays of places to the ports that are there now. It is
// called after every change of either. lazy leaves places without ports alone,
// whose overlay goes with them soon.
func (m *Manager) join(ctx context.Context, places []place, lazy bool) error {
	o, ok := m.dp.(Overlayer)
	m.mu.Lock()
	idle := !m.overlays.on
	m.mu.Unlock()
	if !ok || idle {
		return nil
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.bridge, b.bridge), cmp.Compare(a.vlan, b.vlan)) })
	var failed []error
	for _, at := range slices.Compact(places) {
		if at.vlan != Disconnected {
			failed = append(failed, m.joinOne(ctx, o, at, lazy))
		}
	}
	return errors.Join(failed...)
}

func (m *Manager) joinOne(ctx context.Context, o Overlayer, at place, lazy bool) error {
	m.joining <- struct{}{} // so that the last to look is the last to act
	defer func() { <-m.joining }()
	m.mu.Lock()
	conf := m.overlays.conf
	used := false
	seen := map[string]bool{}
	var remotes []netip.Addr
	for _, p := range m.ports {
		if p.Bridge == at.bridge && p.VLAN == at.vlan {
			used = true
			if !seen[p.Namespace] {
				seen[p.Namespace] = true
				remotes = append(remotes, m.overlays.peers[p.Namespace]...)
			}
		}
	}
	m.mu.Unlock()
	if lazy && !used {
		return nil
	}
	slices.SortFunc(remotes, netip.Addr.Compare)
	return o.SetRemotes(ctx, at.bridge, at.vlan, conf, slices.Compact(remotes))
}

// joinPorts is join after ports came or went: what fails is no reason that they
// should not have.
func (m *Manager) joinPorts(ports ...Port) {
	m.mu.Lock()
	idle := !m.overlays.on || !m.overlays.ever
	m.mu.Unlock()
	if idle {
		return
	}
	var places []place
	for _, p := range ports {
		places = append(places, place{p.Bridge, p.VLAN})
	}
	if err := m.join(context.Background(), places, true); err != nil {
		m.opts.Log.Warn("no overlay", "err", err)
	}
}

// restoreOverlay goes on with what an earlier manager was told, until there is
// news.
func (m *Manager) restoreOverlay(ctx context.Context, r *record) error {
	if r.Overlay == nil {
		r.Overlay, r.Peers = &Overlay{}, nil // without peers it ends what there may be
	}
	var failed []error
	for _, namespace := range slices.Sorted(maps.Keys(r.Peers)) {
		failed = append(failed, m.SetPeers(ctx, namespace, r.Peers[namespace])) // only notes: there is no overlay yet
	}
	return errors.Join(append(failed, m.SetOverlay(ctx, *r.Overlay))...)
}
