package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// overlay joins one VLAN of a bridge with those of other hosts, by one VXLAN
// device that sends what it cannot place to all of them. It passes nothing on
// from one host to another, so hosts that all know each other make no loop.
type overlay struct {
	// What is wanted; guarded by Datapath.mu.
	conf    network.Overlay
	remotes []netip.Addr
	off     string // why it is off although remotes are wanted
	err     error  // why the wish could not be fulfilled

	// What there is; guarded by the bridge's turn.
	made  network.Overlay
	six   bool // over IPv6
	index int  // of the VXLAN device, 0 if there is none
	have  []netip.Addr

	// adopted: an earlier datapath made it, and whom it reaches is not known.
	// Guarded by Datapath.mu.
	adopted bool
}

// The devices of an overlay in segment.extra, where uplinks have their names,
// which have no blanks.
const (
	overlayTunnel = "overlay tunnel"
	wireOf        = " wire" // after the name of what is at its end
)

// SetRemotes joins a VLAN with those of other hosts; see network.Overlayer.
func (d *Datapath) SetRemotes(ctx context.Context, bridge string, vlan int, conf network.Overlay, remotes []netip.Addr) error {
	remotes = d.usable(conf, remotes)
	d.mu.Lock()
	b := d.bridges[bridge]
	var s *segment
	if b != nil {
		s = b.segments[vlan]
	}
	if s == nil || s.overlay == nil && len(remotes) == 0 || s.overlay.is(conf, remotes) {
		d.mu.Unlock()
		return nil
	}
	d.mu.Unlock()

	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	d.mu.Lock()
	if b.segments[vlan] != s || !s.made() {
		d.mu.Unlock()
		return nil // it went with its last port
	}
	if s.overlay == nil {
		s.overlay = &overlay{}
	}
	s.overlay.conf, s.overlay.remotes = conf, remotes
	d.mu.Unlock()
	return d.fit(context.WithoutCancel(ctx), b, s)
}

// is reports whether this is what the overlay is already.
func (o *overlay) is(conf network.Overlay, remotes []netip.Addr) bool {
	return o != nil && !o.adopted && o.err == nil && o.conf == conf && slices.Equal(o.remotes, remotes)
}

// usable returns those remotes that can be reached from the local address: of
// its family, and others than itself.
func (d *Datapath) usable(conf network.Overlay, remotes []netip.Addr) []netip.Addr {
	var good []netip.Addr
	for _, r := range remotes {
		switch {
		case r == conf.Local:
		case conf.Local.IsValid() && r.Is4() != conf.Local.Is4(), !conf.Local.IsValid() && r.Is4() != remotes[0].Is4():
			d.log.Warn("a host is left out of the overlay: its address is of another family", "host", r, "local", conf.Local)
		default:
			good = append(good, r)
		}
	}
	return good
}

// Overlays describes the overlays, those too that are off.
func (d *Datapath) Overlays() []network.OverlayInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []network.OverlayInfo
	for _, name := range slices.Sorted(maps.Keys(d.bridges)) {
		b := d.bridges[name]
		for _, vlan := range slices.Sorted(maps.Keys(b.segments)) {
			if o := b.segments[vlan].overlay; o != nil && len(o.remotes) > 0 {
				list = append(list, network.OverlayInfo{Bridge: name, VLAN: vlan, Remotes: slices.Clone(o.remotes), Off: o.off, Err: o.err})
			}
		}
	}
	return list
}

// fit makes the overlay of a segment as it is wanted. The caller holds the
// bridge's turn. A segment that went meanwhile is no error.
func (d *Datapath) fit(ctx context.Context, b *bridge, s *segment) error {
	d.mu.Lock()
	o := s.overlay
	conf, remotes, was := o.conf, o.remotes, o.off
	o.off = offBecause(b, s)
	if len(remotes) == 0 {
		o.off = ""
	}
	off := o.off
	d.mu.Unlock()
	if off != "" {
		remotes = nil
		if was != off {
			d.log.Warn("no overlay: what is on this VLAN reaches other hosts only if that network does",
				"bridge", s.bridge, "vlan", s.vlan, "reason", off)
		}
	}
	err := d.fitTo(ctx, b, s, conf, remotes)
	if err != nil && !d.current(b, s) {
		err = nil
	}
	d.mu.Lock()
	o.err = err
	d.mu.Unlock()
	return wrap(fmt.Sprintf("cannot join VLAN %d of %s with other hosts", s.vlan, s.bridge), err)
}

// offBecause says why a segment must not have an overlay: another way between
// the same hosts would make a loop.
func offBecause(b *bridge, s *segment) string {
	if !s.own {
		return "the bridge is the host's own, and may lead there already"
	}
	for _, name := range slices.Sorted(maps.Keys(b.uplinks)) {
		return fmt.Sprintf("the bridge has %s, which may lead there already", name)
	}
	return ""
}

func (d *Datapath) fitTo(ctx context.Context, b *bridge, s *segment, conf network.Overlay, remotes []netip.Addr) error {
	o := s.overlay
	if o.index != 0 && (len(remotes) == 0 || o.made != conf || o.six != remotes[0].Is6()) {
		if err := d.dropOverlay(ctx, s); err != nil {
			return err
		}
	}
	if len(remotes) == 0 {
		return nil
	}
	if o.index == 0 {
		if err := d.makeOverlay(ctx, b, s, conf, remotes[0].Is6()); err != nil {
			return errors.Join(err, d.dropOverlay(ctx, s))
		}
	}
	return d.reach(ctx, s, remotes)
}

// reach changes to whom the device sends what it cannot place.
func (d *Datapath) reach(ctx context.Context, s *segment, remotes []netip.Addr) error {
	o := s.overlay
	d.mu.Lock()
	anew := o.adopted
	o.adopted = false
	d.mu.Unlock()
	if anew {
		if err := d.nl.all(ctx, []*nl.NetlinkRequest{floodNone(o.index)}); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	var reqs []*nl.NetlinkRequest
	for _, r := range remotes {
		if !slices.Contains(o.have, r) {
			reqs = append(reqs, floodTo(o.index, r))
		}
	}
	added := len(reqs)
	for _, r := range o.have {
		if !slices.Contains(remotes, r) {
			reqs = append(reqs, floodNot(o.index, r))
		}
	}
	failed := d.nl.do(ctx, reqs)
	for i, err := range failed {
		if errors.Is(err, unix.EEXIST) && i < added || errors.Is(err, unix.ENOENT) && i >= added {
			failed[i] = nil
		}
	}
	if err := first(failed); err != nil {
		return err
	}
	o.have = slices.Clone(remotes)
	return nil
}

func (d *Datapath) dropOverlay(ctx context.Context, s *segment) error {
	o := s.overlay
	d.mu.Lock()
	doomed := []int{s.extra[overlayTunnel+wireOf], s.extra[overlayTunnel]}
	delete(s.extra, overlayTunnel+wireOf)
	delete(s.extra, overlayTunnel)
	o.adopted = false
	d.mu.Unlock()
	o.index, o.have = 0, nil
	return d.remove(ctx, doomed)
}

// makeOverlay makes the devices of a segment's overlay.
func (d *Datapath) makeOverlay(ctx context.Context, b *bridge, s *segment, conf network.Overlay, six bool) error {
	id := vni(conf, s.bridge, s.vlan)
	tunnel, err := d.newDevice(ctx, func(dev string) *nl.NetlinkRequest { return newOverlay(dev, conf.Local, six, id) })
	if errors.Is(err, unix.EEXIST) {
		return errs.WithRemedy(errs.New(errs.Exists, "this host uses VXLAN %d on UDP port %d already", id, network.OverlayPort),
			"it may be another minimega of the same mesh, which must run in a network namespace of its own")
	}
	if err != nil {
		return fmt.Errorf("cannot create overlay: %w", missing(err, "vxlan"))
	}
	index, err := d.space.index(tunnel)
	if err != nil {
		return err
	}
	if !d.note(b, s, overlayTunnel, index) {
		return d.remove(ctx, []int{index})
	}
	s.overlay.index, s.overlay.made, s.overlay.six = index, conf, six
	if err := d.hush(ctx, index); err != nil {
		return err
	}
	end, err := d.plugEnd(ctx, b, s, overlayTunnel+wireOf, index, six)
	if err != nil {
		return err
	}
	return d.nl.all(ctx, []*nl.NetlinkRequest{setMaster(end, s.index), up(end), up(index),
		describe(index, s.describe()+overlayText(conf))}) // the description last: see adoptOverlaysLocked
}

// plugEnd returns the device to plug into a bridge for a VXLAN device: one end
// of a wire (a veth pair) to it. Were it a port of the bridge itself, the kernel
// would refuse full frames of guests where the network between the hosts has an
// MTU of 1500, and tell the guests so, instead of fragmenting what it makes of
// them. Without BPF that is how it is, and over IPv6 too, for which the kernel
// does not fragment: it is better to refuse than to lose.
func (d *Datapath) plugEnd(ctx context.Context, b *bridge, s *segment, what string, tunnel int, six bool) (int, error) {
	if d.guard.prog < 0 || six {
		return tunnel, nil
	}
	return d.wire(ctx, b, s, what, tunnel)
}

// wire makes a veth pair one end of which exchanges all frames with a device,
// and returns the other.
func (d *Datapath) wire(ctx context.Context, b *bridge, s *segment, what string, to int) (int, error) {
	inner := ""
	outer, err := d.newDevice(ctx, func(dev string) *nl.NetlinkRequest {
		inner = d.name()
		return newVeth(dev, inner)
	})
	if err != nil {
		return 0, missing(err, "veth")
	}
	out, err1 := d.space.index(outer)
	in, err2 := d.space.index(inner)
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	if !d.note(b, s, what, out) {
		return 0, errors.Join(unix.ENODEV, d.remove(ctx, []int{out})) // as if the bridge had gone first
	}
	if err := errors.Join(d.hush(ctx, out), d.hush(ctx, in)); err != nil {
		return 0, err
	}
	if err := errors.Join(d.redirect(ctx, out, to), d.redirect(ctx, to, out)); err != nil {
		return 0, err
	}
	return in, d.nl.all(ctx, []*nl.NetlinkRequest{up(out), describe(out, wireText(to))})
}

// redirect sends out of one device all that comes in on another.
func (d *Datapath) redirect(ctx context.Context, from, to int) error {
	prog, err := loadProgram([]uint64{
		0x01b7 | uint64(uint32(to))<<32, // r1 = to
		0x02b7,                          // r2 = 0: egress
		0x85 | 23<<32,                   // call bpf_redirect
		0x95,                            // exit with its answer
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(prog) }() // the filter holds it
	return d.nl.all(ctx, []*nl.NetlinkRequest{newClsact(from), newFilter(from, clsactIngress, 1, prog)})
}

// hush keeps IPv6 off a device, if the host has that.
func (d *Datapath) hush(ctx context.Context, index int) error {
	err := d.nl.all(ctx, []*nl.NetlinkRequest{quiet(index)})
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil
	}
	return err
}

// note says that a device is part of a segment, unless that went meanwhile.
func (d *Datapath) note(b *bridge, s *segment, what string, index int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.segments[s.vlan] != s {
		return false
	}
	s.extra[what] = index
	return true
}

// refit makes the overlays of a bridge anew after its uplinks have changed. The
// caller holds the bridge's turn.
func (d *Datapath) refit(ctx context.Context, b *bridge) error {
	d.mu.Lock()
	segments := slices.Collect(maps.Values(b.segments))
	d.mu.Unlock()
	var failed []error
	for _, s := range segments {
		if s.made() && s.overlay != nil {
			failed = append(failed, d.fit(context.WithoutCancel(ctx), b, s))
		}
	}
	return errors.Join(failed...)
}
