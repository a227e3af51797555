// Package linux connects ports with what every Linux has: tap devices, veth
// pairs and bridges, one bridge for each VLAN in use. It speaks netlink in
// batches and starts no program.
//
// It works in the network namespace of the thread that calls New, and marks
// what it makes by names "mm<tag>-N", the tag being its own.
package linux

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/undo"
)

// Datapath is a network.Datapath.
type Datapath struct {
	log   *slog.Logger
	tag   string // start of the names of our devices
	mark  string // start of the descriptions of taps, whose names are others'
	group uint32 // of containers' taps: what they have before a description
	doom  uint32 // first of the groups of devices that are being removed, see remove
	space *space
	nl    *conn
	guard *guard

	nextTap, nextName, nextDoom atomic.Uint32

	inherited map[string]bool // names of the ports that Adopt was asked for; nobody changes it later
	idle      sync.WaitGroup  // timers of segments, see linger

	mu      sync.Mutex // guards the fields below; never held while the kernel works
	closed  bool
	bridges map[string]*bridge
	ports   map[int]*segment // by index; nil: connected to nothing, or could not be removed
	changed chan struct{}    // closed and replaced when the segments change
}

// New makes a datapath for the owner with this id: two on one host must have
// different ones, a base directory will do.
func New(id string, log *slog.Logger) (*Datapath, error) {
	sp, err := here()
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		sp.close()
		return nil, err
	}
	warnOfFirewall(sp, log)
	tag, mark := tagOf(id)
	return &Datapath{
		log: log, tag: tag, mark: mark, group: groupOf(id), doom: doomOf(id), space: sp, nl: c, guard: newGuard(log),
		bridges: map[string]*bridge{}, ports: map[int]*segment{}, changed: make(chan struct{}),
	}, nil
}

// tagOf returns what the names of an owner's devices start with, and the
// descriptions of its taps.
func tagOf(id string) (tag, mark string) {
	sum := sha256.Sum256([]byte(id))
	text := hex.EncodeToString(sum[:])
	return "mm" + text[:5] + "-", "minimega " + text[:16] + ": "
}

// groupOf returns the number of an owner's group of devices (ip-link(8)), far
// from those that people choose.
func groupOf(id string) uint32 {
	sum := sha256.Sum256([]byte(id))
	return 1<<30 | binary.BigEndian.Uint32(sum[8:])>>2
}

// groupsEach is how many groups an owner has for devices that are being removed.
const groupsEach = 1 << 15

// doomOf returns the first of them.
func doomOf(id string) uint32 {
	sum := sha256.Sum256([]byte(id))
	return 1<<31 | uint32(binary.BigEndian.Uint16(sum[12:]))*groupsEach
}

// warnOfFirewall tells of a host that passes bridged packets through its
// firewall (as Docker arranges), which may drop what guests send to each other.
func warnOfFirewall(sp *space, log *slog.Logger) {
	const file = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	var on []byte
	err := sp.in(func() (err error) {
		on, err = os.ReadFile(file)
		return err
	})
	if err == nil && strings.TrimSpace(string(on)) != "0" {
		log.Warn("this host's firewall sees what guests send to each other, and may drop it",
			"remedy", "sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0")
	}
}

// name returns a device name of our own that was not used before.
func (d *Datapath) name() string { return fmt.Sprintf("%s%d", d.tag, d.nextName.Add(1)) }

// Create makes ports; see network.Datapath.
func (d *Datapath) Create(ctx context.Context, specs []network.PortSpec) ([]network.Port, error) {
	b := &building{d: d, ports: make([]network.Port, len(specs)), segments: make([]*segment, len(specs))}
	for i, s := range specs {
		b.ports[i].PortSpec = s
	}
	err := undo.Run(ctx,
		undo.Step{Name: "create bridge", Do: b.bridges, Undo: b.releaseBridges},
		undo.Step{Name: "create tap", Do: b.devices, Undo: b.removeDevices},
		undo.Step{Name: "connect tap", Do: b.connect},
	)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range b.ports {
		d.ports[p.Index] = b.segments[i]
	}
	return b.ports, nil
}

// building is a Create on its way.
type building struct {
	d        *Datapath
	ports    []network.Port
	segments []*segment
	made     []int // indices of devices to remove if it fails
}

func (b *building) bridges(ctx context.Context) error {
	for i, p := range b.ports {
		if p.VLAN == network.Disconnected {
			continue
		}
		s, err := b.d.acquire(ctx, p.Bridge, p.VLAN)
		if err != nil {
			return errors.Join(err, b.releaseBridges())
		}
		b.segments[i] = s
	}
	return nil
}

func (b *building) releaseBridges() error {
	doomed := b.d.release(b.segments...)
	return b.d.remove(context.Background(), doomed)
}

func (b *building) devices(ctx context.Context) error {
	err := b.taps(ctx)
	if err == nil {
		err = b.pairs(ctx)
	}
	if err == nil {
		err = b.cables(ctx)
	}
	if err != nil {
		return errors.Join(err, b.removeDevices())
	}
	return nil
}

func (b *building) removeDevices() error { return b.d.remove(context.Background(), b.made) }

func (b *building) connect(ctx context.Context) error {
	var reqs []*nl.NetlinkRequest
	quiets := map[int]bool{}
	for i, p := range b.ports {
		if p.Kind == network.Container {
			reqs = append(reqs, describe(p.Index, b.d.mark+p.Owner)) // the kernel takes none when it makes the device
		}
		quiets[len(reqs)] = true
		reqs = append(append(reqs, quiet(p.Index)), plug(p.Index, b.segments[i])...)
	}
	if err := b.d.guardPorts(ctx, b.ports); err != nil {
		return err
	}
	for i, err := range b.d.nl.do(ctx, reqs) {
		if err != nil && !(quiets[i] && errors.Is(err, unix.EAFNOSUPPORT)) {
			return wrap("cannot connect", full(err))
		}
	}
	return nil
}

// full says what the kernel means by EXFULL.
func full(err error) error {
	if errors.Is(err, unix.EXFULL) {
		return errs.WithRemedy(errs.New(errs.Resource, "a Linux bridge takes 1023 ports for each VLAN: %w", err),
			"use another VLAN, or Open vSwitch")
	}
	return err
}

// plug connects a device that is down. A device on no bridge stays down: if it
// were up, its frames would go to the host's IP stack.
func plug(index int, s *segment) []*nl.NetlinkRequest {
	if s == nil {
		return []*nl.NetlinkRequest{setMaster(index, 0)}
	}
	reqs := []*nl.NetlinkRequest{setMaster(index, s.index), up(index)}
	if s.mtu != 0 {
		reqs = append(reqs, setMTU(index, s.mtu))
	}
	return reqs
}

// Delete removes ports and the bridges that have no port any more.
func (d *Datapath) Delete(ctx context.Context, ports []network.Port) error {
	segments, doomed := d.take(ports)
	return d.remove(ctx, append(doomed, d.release(segments...)...))
}

// Move connects a port elsewhere; see network.Datapath.
func (d *Datapath) Move(ctx context.Context, p network.Port, bridge string, vlan int) error {
	var to *segment
	if vlan != network.Disconnected {
		var err error
		if to, err = d.acquire(ctx, bridge, vlan); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // a port must not stay half-way
	reqs := append([]*nl.NetlinkRequest{down(p.Index)}, plug(p.Index, to)...)
	if err := d.nl.all(ctx, reqs); err != nil {
		back := d.remove(ctx, d.release(to))
		return errors.Join(fmt.Errorf("cannot connect %s: %w", p.Name, full(err)), back)
	}
	d.mu.Lock()
	from, known := d.ports[p.Index]
	if known {
		d.ports[p.Index] = to
	} else {
		from = to // deleted meanwhile
	}
	d.mu.Unlock()
	return d.remove(ctx, d.release(from))
}

// AddIP gives an address to the outer end of a Host port.
func (d *Datapath) AddIP(ctx context.Context, p network.Port, addr netip.Prefix) error {
	if p.Kind != network.Host {
		return errs.New(errs.Invalid, "%s is not a host tap", p.Name)
	}
	index, err := d.space.index(p.Name)
	if err == nil {
		err = d.nl.all(ctx, []*nl.NetlinkRequest{newAddr(index, addr)})
	}
	if errors.Is(err, unix.EEXIST) {
		return errs.New(errs.Exists, "%s has the address %s already", p.Name, addr)
	}
	return wrap(fmt.Sprintf("cannot add %s to %s", addr, p.Name), err)
}

// Close removes all that is left of what this datapath made. A second Close
// does nothing.
func (d *Datapath) Close(ctx context.Context) error {
	d.mu.Lock()
	was := d.closed
	d.closed = true
	doomed := slices.Collect(maps.Keys(d.ports))
	for _, b := range d.bridges {
		for _, s := range b.segments {
			doomed = append(doomed, s.devicesLocked()...)
			d.wakeLocked(s)
		}
	}
	clear(d.ports)
	clear(d.bridges)
	d.changedLocked()
	d.mu.Unlock()
	if was {
		return nil
	}
	d.idle.Wait()
	err := d.remove(ctx, doomed)
	d.nl.close()
	d.space.close()
	d.guard.close()
	return err
}
