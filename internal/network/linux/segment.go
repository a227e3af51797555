package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// bridge is what people call a bridge: a set of segments, one for each VLAN, and
// what applies to all of them. It lasts as long as the datapath.
type bridge struct {
	segments map[int]*segment // by VLAN
	uplinks  map[string]*uplink
	config   map[string]string

	turn chan struct{} // whoever makes a segment or changes what applies to all holds it
}

func newBridgeState() *bridge {
	return &bridge{
		segments: map[int]*segment{}, uplinks: map[string]*uplink{}, config: map[string]string{},
		turn: make(chan struct{}, 1),
	}
}

// segment is one VLAN of a bridge: a bridge device of the kernel.
type segment struct {
	bridge string
	vlan   int
	ready  chan struct{} // closed when the fields below are set for good
	err    error         // why it could not be made
	name   string
	index  int
	mtu    int  // that its ports must have, 0 for any
	own    bool // we made the device

	// Guarded by Datapath.mu:
	ports int            // how many use it
	extra map[string]int // devices of ours that join it with an uplink, by the uplink's name
	idle  *time.Timer    // removes it, while it has no ports; see linger
	// overlay joins it with other hosts; see there for what guards its fields
	overlay *overlay
}

// devicesLocked returns the indices of all devices that we made for the segment.
func (s *segment) devicesLocked() []int {
	list := slices.Collect(maps.Values(s.extra))
	if s.own {
		list = append(list, s.index)
	}
	return list
}

func (d *Datapath) changedLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// acquire returns the segment of a VLAN, made if needed, for one more port.
func (d *Datapath) acquire(ctx context.Context, name string, vlan int) (*segment, error) {
	d.mu.Lock()
	b := d.bridgeLocked(name)
	s := b.segments[vlan]
	first := s == nil
	if first {
		s = &segment{bridge: name, vlan: vlan, ready: make(chan struct{}), extra: map[string]int{}}
		b.segments[vlan] = s
	}
	s.ports++
	d.wakeLocked(s)
	d.mu.Unlock()

	if first {
		d.makeSegment(ctx, b, s)
	}
	<-s.ready // made by another caller within milliseconds
	return s, s.err
}

func (d *Datapath) bridgeLocked(name string) *bridge {
	b := d.bridges[name]
	if b == nil {
		b = newBridgeState()
		d.bridges[name] = b
	}
	return b
}

func (d *Datapath) makeSegment(ctx context.Context, b *bridge, s *segment) {
	b.turn <- struct{}{} // held by others for milliseconds
	defer func() { <-b.turn }()
	ctx = context.WithoutCancel(ctx) // others may be waiting for it, so that it is not ours to cancel
	s.err = d.makeBridge(ctx, s)
	if s.err == nil {
		if s.err = d.prepare(ctx, b, s); s.err != nil {
			s.err = errors.Join(s.err, d.remove(ctx, d.doomed(s)))
		}
	}
	d.mu.Lock()
	if s.err != nil {
		d.forgetLocked(s)
	}
	d.changedLocked()
	d.mu.Unlock()
	close(s.ready)
}

func (d *Datapath) doomed(s *segment) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.devicesLocked()
}

func (d *Datapath) forgetLocked(s *segment) {
	b := d.bridges[s.bridge]
	if b == nil || b.segments[s.vlan] != s {
		return
	}
	d.wakeLocked(s)
	delete(b.segments, s.vlan)
}

// release takes one port off each of the segments (nil ones are passed by) and
// returns the devices that nobody needs any more, for remove.
func (d *Datapath) release(segments ...*segment) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var doomed []int
	for _, s := range segments {
		if s == nil {
			continue
		}
		if s.ports--; s.ports == 0 {
			d.forgetLocked(s)
			doomed = append(doomed, s.devicesLocked()...)
		}
	}
	if doomed != nil {
		d.changedLocked()
	}
	return doomed
}

// makeBridge finds or makes the device of a segment. A bridge of the host with
// that very name is its VLAN 0, and is left as it is.
func (d *Datapath) makeBridge(ctx context.Context, s *segment) error {
	if s.vlan == 0 {
		there, err := d.Preexisting(ctx, s.bridge)
		if err != nil {
			return err
		}
		if there {
			s.name = s.bridge
			s.index, s.mtu, err = d.space.device(s.bridge)
			return err
		}
	}
	name, err := d.newDevice(ctx, newBridge)
	if err != nil {
		return fmt.Errorf("cannot create bridge device: %w", missing(err, "bridge"))
	}
	index, err := d.space.index(name)
	if err != nil {
		return err
	}
	s.name, s.index, s.own = name, index, true
	if err := d.setUpBridge(ctx, s); err != nil {
		return errors.Join(fmt.Errorf("cannot set up bridge device: %w", err), d.remove(ctx, []int{index}))
	}
	return nil
}

func (d *Datapath) setUpBridge(ctx context.Context, s *segment) error {
	if err := first(d.nl.do(ctx, []*nl.NetlinkRequest{quiet(s.index)})); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return err
	}
	if err := d.seal(ctx, s); err != nil {
		return err
	}
	// The description last: one that has it is complete, see Adopt.
	return d.nl.all(ctx, []*nl.NetlinkRequest{upNoARP(s.index), describe(s.index, s.describe())})
}

// newDevice makes a device under a name of our own and returns the name.
func (d *Datapath) newDevice(ctx context.Context, request func(name string) *nl.NetlinkRequest) (string, error) {
	for {
		name := d.name()
		err := d.nl.all(ctx, []*nl.NetlinkRequest{request(name)})
		if !errors.Is(err, unix.EEXIST) || !d.space.exists(name) {
			return name, err
		}
	}
}

// missing says which part of the kernel is not there, if that is what err means.
func missing(err error, module string) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return errs.WithRemedy(errs.New(errs.Unsupported, "this kernel has no %s: %w", module, err),
			fmt.Sprintf("load it with `modprobe %s`", module))
	}
	if errors.Is(err, unix.EPERM) {
		return errs.WithRemedy(errs.Wrap(errs.Permission, err), "run minimega as root or with CAP_NET_ADMIN")
	}
	return err
}

// Preexisting reports whether the host has a bridge device of this name.
func (d *Datapath) Preexisting(_ context.Context, bridge string) (bool, error) {
	driver, err := d.space.driver(bridge)
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && driver != "bridge" {
		return false, errs.WithRemedy(errs.New(errs.Exists, "%s is an interface of this host, but no bridge", bridge), "choose another name")
	}
	return err == nil, err
}

// Links lists the bridge devices of a bridge by VLAN: one that is watched in
// promiscuous mode shows all frames of its VLAN.
func (d *Datapath) Links(name string) ([]network.Link, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var links []network.Link
	if b := d.bridges[name]; b != nil {
		for _, vlan := range slices.Sorted(maps.Keys(b.segments)) {
			if s := b.segments[vlan]; s.made() {
				links = append(links, network.Link{Name: s.name, VLAN: vlan})
			}
		}
	}
	return links, d.changed
}

// made reports whether the segment is ready and well.
func (s *segment) made() bool {
	select {
	case <-s.ready:
		return s.err == nil
	default:
		return false
	}
}

// Destroy removes the devices of a bridge; see network.Datapath.
func (d *Datapath) Destroy(ctx context.Context, name string) error {
	d.mu.Lock()
	b := d.bridges[name]
	d.mu.Unlock()
	if b == nil {
		return nil
	}
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	doomed, unplug := d.forgetBridge(b)
	err := first(d.nl.do(context.WithoutCancel(ctx), unplug))
	if errors.Is(err, unix.ENODEV) {
		err = nil // removed by somebody else
	}
	return errors.Join(err, d.remove(ctx, doomed))
}

// forgetBridge empties a bridge, of which the caller has the turn. It returns
// the devices to remove, and what must be done to others before.
func (d *Datapath) forgetBridge(b *bridge) (doomed []int, unplug []*nl.NetlinkRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for index, s := range d.ports {
		if s != nil && b.segments[s.vlan] == s {
			d.ports[index] = nil
			unplug = append(unplug, down(index), setMaster(index, 0)) // down: see plug
		}
	}
	for vlan, s := range b.segments {
		if s.made() { // others are on their way for ports to come
			doomed = append(doomed, s.devicesLocked()...)
			d.wakeLocked(s)
			delete(b.segments, vlan)
		}
	}
	for _, u := range b.uplinks {
		if u.iface != 0 {
			unplug = append(unplug, setMaster(u.iface, 0))
		}
	}
	clear(b.uplinks)
	clear(b.config)
	d.changedLocked()
	return doomed, unplug
}
