package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/network"
)

// device is a network device of the kernel.
type device struct {
	index int
	peer  int // IFLA_LINK: the other end of a veth
	name  string
	kind  string // "bridge", "tun", "veth", …
	alias string
	group uint32
	six   bool // a tunnel over IPv6
}

// devices lists all devices of the network namespace.
func (d *Datapath) devices(ctx context.Context) ([]device, error) {
	var list []device
	err := d.nl.dump(ctx, link(unix.RTM_GETLINK, 0, 0, 0, 0), func(body []byte) {
		if dev, ok := parseDevice(body); ok {
			list = append(list, dev)
		}
	})
	return list, wrap("cannot list interfaces", err)
}

// parseDevice reads one answer: struct ifinfomsg and attributes.
func parseDevice(body []byte) (dev device, ok bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return dev, false
	}
	dev.index = int(int32(binary.NativeEndian.Uint32(body[4:])))
	for kind, value := range attributes(body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			dev.name = unix.ByteSliceToString(value)
		case unix.IFLA_IFALIAS:
			dev.alias = unix.ByteSliceToString(value)
		case unix.IFLA_GROUP:
			if len(value) == 4 {
				dev.group = binary.NativeEndian.Uint32(value)
			}
		case unix.IFLA_LINK:
			if len(value) == 4 {
				dev.peer = int(binary.NativeEndian.Uint32(value))
			}
		case unix.IFLA_LINKINFO:
			for k, v := range attributes(value) {
				switch k {
				case nl.IFLA_INFO_KIND:
					dev.kind = unix.ByteSliceToString(v)
				case nl.IFLA_INFO_DATA:
					dev.six = dev.kind == "vxlan" && overIPv6(v)
				}
			}
		}
	}
	return dev, dev.name != "" && dev.index > 0
}

// overIPv6 reads the properties of a VXLAN device.
func overIPv6(data []byte) bool {
	for k := range attributes(data) {
		if k == nl.IFLA_VXLAN_LOCAL6 {
			return true
		}
	}
	return false
}

// describe says in words what a segment is; parseSegment reads it.
func (s *segment) describe() string { return fmt.Sprintf("minimega: %s, VLAN %d", s.bridge, s.vlan) }

func parseSegment(text string) (bridge string, vlan int, ok bool) {
	text, ok = strings.CutPrefix(text, "minimega: ")
	bridge, number, cut := strings.Cut(text, ", VLAN ")
	vlan, err := strconv.Atoi(number)
	return bridge, vlan, ok && cut && bridge != "" && err == nil && vlan >= 0 && vlan <= noTag
}

// legacy is what an earlier datapath left.
type legacy struct {
	all  map[string]device // by name, others' too
	ours map[int]device    // by index
	back map[int]device    // of ours: the inner end by the index of the outer

	wires map[int]device // of ours: the outer end by the index of what it is a wire to
}

func (d *Datapath) inherit(ctx context.Context) (*legacy, error) {
	list, err := d.devices(ctx)
	if err != nil {
		return nil, err
	}
	var spared []*nl.NetlinkRequest
	l := &legacy{all: map[string]device{}, ours: map[int]device{}, back: map[int]device{}, wires: map[int]device{}}
	for _, dev := range list {
		l.all[dev.name] = dev
		number, named := strings.CutPrefix(dev.name, d.tag)
		doomed := dev.group-d.doom < groupsEach
		if !named && !strings.HasPrefix(dev.alias, d.mark) && dev.group != d.group && !doomed {
			continue
		}
		if doomed { // or what is adopted would go with others that this one removes
			spared = append(spared, setGroup(dev.index, d.group))
		}
		l.ours[dev.index] = dev
		if named && dev.kind == "veth" && dev.peer != 0 { // the peer of a container's is elsewhere
			l.back[dev.peer] = dev
		}
		if to, ok := parseWire(dev.alias); ok && named && dev.kind == "veth" {
			l.wires[to] = dev
		}
		if n, err := strconv.ParseUint(number, 10, 32); named && err == nil && uint32(n) > d.nextName.Load() {
			d.nextName.Store(uint32(n))
		}
	}
	for _, err := range d.nl.do(ctx, spared) {
		if err != nil && !errors.Is(err, unix.ENODEV) { // gone meanwhile, with its container
			return nil, fmt.Errorf("cannot take over interfaces: %w", err)
		}
	}
	return l, nil
}

// Adopt takes over what an earlier datapath of the same owner left; see
// network.Adopter. Uplinks are removed: they are made again by who knows them.
func (d *Datapath) Adopt(ctx context.Context, specs []network.PortSpec) ([]network.Port, []string, error) {
	l, err := d.inherit(ctx)
	if err != nil {
		return nil, nil, err
	}
	d.adoptSegments(l)
	d.inherited = make(map[string]bool, len(specs))
	var found []network.Port
	var failed []error
	for _, s := range specs {
		d.inherited[s.Name] = true
		p, seg, err := d.adoptPort(ctx, l, s)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if p.Index != 0 {
			delete(l.ours, p.Index)
			found = append(found, p)
			d.mu.Lock()
			d.ports[p.Index] = seg
			d.mu.Unlock()
		}
	}
	removed, err := d.removeRest(ctx, l)
	return found, removed, errors.Join(append(failed, err)...)
}

// adoptSegments takes in the bridge devices that are complete, without ports.
func (d *Datapath) adoptSegments(l *legacy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dev := range l.ours {
		name, vlan, ok := parseSegment(dev.alias)
		if !ok || dev.kind != "bridge" {
			continue
		}
		b := d.bridgeLocked(name)
		if b.segments[vlan] != nil {
			continue // made twice when the earlier daemon died: one is enough
		}
		s := &segment{bridge: name, vlan: vlan, ready: make(chan struct{}), name: dev.name, index: dev.index, own: true, extra: map[string]int{}}
		close(s.ready)
		b.segments[vlan] = s
	}
	d.adoptOverlaysLocked(l)
	d.changedLocked()
}

// adoptPort finds the device of a port and connects it as the spec says. A
// port without an index is one that is not there, or not ours.
func (d *Datapath) adoptPort(ctx context.Context, l *legacy, spec network.PortSpec) (network.Port, *segment, error) {
	p := network.Port{PortSpec: spec}
	dev, ok := l.all[spec.Name]
	switch {
	case ok && spec.Kind == network.Host:
		dev, ok = l.back[dev.index]
	case ok:
		_, ok = l.ours[dev.index]
		ok = ok && dev.kind == map[network.Kind]string{network.Tap: "tun", network.Container: "veth"}[spec.Kind]
	}
	if !ok {
		return p, nil, nil
	}
	var s *segment
	if spec.VLAN != network.Disconnected {
		var err error
		if s, err = d.acquire(ctx, spec.Bridge, spec.VLAN); err != nil {
			return p, nil, fmt.Errorf("cannot connect %s again: %w", spec.Name, err)
		}
	}
	reqs := plug(dev.index, s)
	if s == nil {
		reqs = append([]*nl.NetlinkRequest{down(dev.index)}, reqs...)
	}
	if err := d.nl.all(ctx, reqs); err != nil {
		return p, nil, errors.Join(fmt.Errorf("cannot connect %s again: %w", spec.Name, err), d.remove(ctx, d.release(s)))
	}
	p.Index = dev.index
	return p, s, nil
}

// removeRest removes what nobody claimed, and segments without ports.
func (d *Datapath) removeRest(ctx context.Context, l *legacy) ([]string, error) {
	d.mu.Lock()
	for _, b := range d.bridges {
		for vlan, s := range b.segments {
			switch {
			case s.ports > 0:
				delete(l.ours, s.index)
				l.keepOverlay(s)
			default:
				delete(b.segments, vlan)
			}
		}
	}
	d.changedLocked()
	d.mu.Unlock()
	var doomed []int
	var names []string
	for index, dev := range l.ours {
		doomed = append(doomed, index)
		names = append(names, dev.name)
	}
	slices.Sort(names)
	return names, d.remove(ctx, doomed)
}

// pattern is what tag makes of any owner.
var pattern = regexp.MustCompile(`^mm[0-9a-f]{5}-[0-9]+$`)

// Orphans names the devices of other owners none of which is among the ids of
// those who live.
func (d *Datapath) Orphans(ctx context.Context, living []string) ([]string, error) {
	list, err := d.devices(ctx)
	if err != nil {
		return nil, err
	}
	tags := map[string]bool{d.tag: true}
	marks := map[string]bool{d.mark: true}
	for _, id := range living {
		tag, mark := tagOf(id)
		tags[tag], marks[mark] = true, true
	}
	var names []string
	for _, dev := range list {
		number := strings.LastIndexByte(dev.name, '-')
		mark, _, marked := strings.Cut(dev.alias, ": ")
		marked = marked && strings.HasPrefix(mark, "minimega ") && dev.kind != "bridge"
		if pattern.MatchString(dev.name) && !tags[dev.name[:number+1]] || marked && !marks[mark+": "] {
			names = append(names, dev.name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Sweep removes taps named as minimega names them (network.AutoName) that do
// not belong to an owner who lives, and returns their names.
func (d *Datapath) Sweep(ctx context.Context, living []string) ([]string, error) {
	list, err := d.devices(ctx)
	if err != nil {
		return nil, err
	}
	var marks []string
	for _, id := range living {
		_, mark := tagOf(id)
		marks = append(marks, mark)
	}
	var names []string
	var doomed []int
	for _, dev := range list {
		lives := slices.ContainsFunc(marks, func(m string) bool { return m != d.mark && strings.HasPrefix(dev.alias, m) })
		if strings.Contains(dev.name, network.AutoName) && !lives {
			names, doomed = append(names, dev.name), append(doomed, dev.index)
		}
	}
	return names, d.remove(ctx, doomed)
}
