package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// uplink joins all segments of a bridge with the world outside: each by a
// device of its own. It does not change once made.
type uplink struct {
	name   string
	module string // of the kernel
	device func(name string, vlan int) *nl.NetlinkRequest
	iface  int // index of a trunk's interface, which itself joins VLAN 0
	vxlan  bool
	six    bool // over IPv6
}

// maxKey is the largest key of a VXLAN tunnel: 24 bits of VNI hold it and the VLAN.
const maxKey = 1<<12 - 1

// Tunnel joins a bridge with the one of the same name and key on another host.
// Each VLAN has a tunnel of its own: number key<<12 | VLAN, so that VXLAN (24
// bits, RFC 7348) uses the low 12 bits of the key, GRE (RFC 2890) the low 20.
func (d *Datapath) Tunnel(ctx context.Context, name string, t network.Tunnel) (string, error) {
	u := &uplink{name: cmp.Or(t.Name, d.name())}
	switch t.Kind {
	case "vxlan":
		u.module, u.vxlan, u.six = "vxlan", true, t.Remote.Is6()
		u.device = func(dev string, vlan int) *nl.NetlinkRequest {
			return newVXLAN(dev, t.Remote, (t.Key&maxKey)<<12|uint32(vlan))
		}
	case "gre":
		u.module = "ip_gre"
		u.device = func(dev string, vlan int) *nl.NetlinkRequest {
			return newGRE(dev, t.Remote, t.Key<<12|uint32(vlan))
		}
	default:
		return "", errs.New(errs.Invalid, "unknown kind of tunnel: %q", t.Kind)
	}
	return u.name, d.addUplink(ctx, name, u)
}

// Untunnel is the way back of Tunnel.
func (d *Datapath) Untunnel(ctx context.Context, name, tunnel string) error {
	return d.removeUplink(ctx, name, tunnel)
}

// Trunk joins a bridge with an interface: VLAN 0 untagged, others with their
// tag (IEEE 802.1Q). The interface is used for nothing else from then on.
func (d *Datapath) Trunk(ctx context.Context, name, iface string) error {
	index, err := d.space.index(iface)
	if err != nil {
		return errs.New(errs.NotFound, "no interface %s: %w", iface, err)
	}
	if err := d.nl.all(ctx, []*nl.NetlinkRequest{up(index)}); err != nil {
		return fmt.Errorf("cannot set up %s: %w", iface, err)
	}
	return d.addUplink(ctx, name, &uplink{name: iface, module: "8021q", iface: index,
		device: func(dev string, vlan int) *nl.NetlinkRequest {
			return newVLAN(dev, index, uint16(vlan))
		}})
}

// Untrunk is the way back of Trunk.
func (d *Datapath) Untrunk(ctx context.Context, name, iface string) error {
	return d.removeUplink(ctx, name, iface)
}

// addUplink joins all segments there are with u, and those to come.
func (d *Datapath) addUplink(ctx context.Context, name string, u *uplink) error {
	d.mu.Lock()
	b := d.bridgeLocked(name)
	d.mu.Unlock()
	b.turn <- struct{}{}
	defer func() { <-b.turn }()

	err := d.probe(ctx, u)
	if err != nil {
		return err
	}
	d.mu.Lock()
	b.uplinks[u.name] = u
	segments := slices.Collect(maps.Values(b.segments))
	d.mu.Unlock()
	err = d.refit(ctx, b) // first, because there must never be two ways
	for _, s := range segments {
		if s.made() && err == nil {
			err = d.join(ctx, b, s, u)
		}
	}
	if err != nil {
		return errors.Join(err, d.leave(ctx, b, u))
	}
	return nil
}

// probe makes a device like those that u needs, and removes it: what this
// kernel cannot do is to be said now, and not with the first port.
func (d *Datapath) probe(ctx context.Context, u *uplink) error {
	dev, err := d.newDevice(ctx, func(name string) *nl.NetlinkRequest { return u.device(name, probeVLAN) })
	if errors.Is(err, unix.EEXIST) {
		return errs.WithRemedy(errs.New(errs.Exists, "the host has such a tunnel or VLAN interface already"), "choose another key or interface")
	}
	if err != nil {
		return fmt.Errorf("cannot create uplink: %w", missing(err, u.module))
	}
	index, err := d.space.index(dev)
	if err != nil {
		return err
	}
	return d.remove(ctx, []int{index})
}

const (
	probeVLAN = 4094 // the last that can be tagged
	noTag     = 4095 // reserved by IEEE 802.1Q: stays on the host
)

// prepare does to a new segment what was done to the others of its bridge.
func (d *Datapath) prepare(ctx context.Context, b *bridge, s *segment) error {
	d.mu.Lock()
	uplinks := slices.Collect(maps.Values(b.uplinks))
	config := maps.Clone(b.config)
	d.mu.Unlock()
	for key, value := range config {
		if err := d.configure(ctx, s, key, value); err != nil {
			return err
		}
	}
	for _, u := range uplinks {
		if err := d.join(ctx, b, s, u); err != nil {
			return err
		}
	}
	return nil
}

// join makes the device between a segment and an uplink.
func (d *Datapath) join(ctx context.Context, b *bridge, s *segment, u *uplink) error {
	if u.iface != 0 && s.vlan == noTag {
		return nil
	}
	index := u.iface
	if u.iface == 0 || s.vlan != 0 {
		dev, err := d.newDevice(ctx, func(name string) *nl.NetlinkRequest { return u.device(name, s.vlan) })
		if err != nil {
			return fmt.Errorf("cannot join VLAN %d with %s: %w", s.vlan, u.name, missing(err, u.module))
		}
		if index, err = d.space.index(dev); err != nil {
			return err
		}
		if !d.own(b, s, u, index) {
			return d.remove(ctx, []int{index})
		}
		if err := d.hush(ctx, index); err != nil {
			return err
		}
	}
	end, err := index, error(nil)
	if u.vxlan {
		end, err = d.plugEnd(ctx, b, s, u.name+wireOf, index, u.six)
	}
	if err == nil {
		err = d.nl.all(ctx, []*nl.NetlinkRequest{setMaster(end, s.index), up(end), up(index)})
	}
	if errors.Is(err, unix.ENODEV) && !d.current(b, s) {
		return nil
	}
	return wrap(fmt.Sprintf("cannot join VLAN %d with %s", s.vlan, u.name), err)
}

// own notes a device as part of a segment, unless that went with its last port.
func (d *Datapath) own(b *bridge, s *segment, u *uplink, index int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.segments[s.vlan] != s {
		return false
	}
	s.extra[u.name] = index
	return true
}

func (d *Datapath) current(b *bridge, s *segment) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.segments[s.vlan] == s
}

func (d *Datapath) removeUplink(ctx context.Context, name, uplink string) error {
	d.mu.Lock()
	b := d.bridges[name]
	d.mu.Unlock()
	if b == nil {
		return errs.New(errs.NotFound, "bridge %s has no uplink %s", name, uplink)
	}
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	d.mu.Lock()
	u := b.uplinks[uplink]
	d.mu.Unlock()
	if u == nil {
		return errs.New(errs.NotFound, "bridge %s has no uplink %s", name, uplink)
	}
	return d.leave(ctx, b, u)
}

// leave takes u off all segments; the caller holds the bridge's turn.
func (d *Datapath) leave(ctx context.Context, b *bridge, u *uplink) error {
	var doomed []int
	d.mu.Lock()
	delete(b.uplinks, u.name)
	for _, s := range b.segments {
		doomed = append(doomed, s.extra[u.name], s.extra[u.name+wireOf]) // 0 for none
		delete(s.extra, u.name)
		delete(s.extra, u.name+wireOf)
	}
	d.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	var err error
	if u.iface != 0 {
		err = d.nl.all(ctx, []*nl.NetlinkRequest{setMaster(u.iface, 0)})
	}
	if errors.Is(err, unix.ENODEV) {
		err = nil // the host lost the interface
	}
	return errors.Join(err, d.remove(ctx, doomed), d.refit(ctx, b))
}
