package linux

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/host"
	"minimega/internal/network"
)

// guard keeps guests and host apart: a bridge device hands broadcasts and
// frames to its own address up to the host's IP stack, which would answer for
// any address of the host. A program of two instructions drops them there;
// packet sockets see them before. Without BPF, sysctls shut most of it.
//
// A port of a bridge hands up by itself what the bridge must not pass on: frames
// to some group addresses (see loadPort), which are dropped as they come from the
// guest.
type guard struct {
	prog int // descriptor of the program of bridges, -1 without BPF
	port int // and of that of ports
}

// See linux/bpf.h and linux/pkt_cls.h.
const (
	bpfSchedCls     = 3
	bpfDirectAction = 1
	tcActShot       = 2
	clsact          = 0xfffffff1
	clsactIngress   = 0xfffffff2
	clsactEgress    = 0xfffffff3
	tcaBPFFD        = 6
	tcaBPFName      = 7
	tcaBPFFlags     = 8
)

func newGuard(log *slog.Logger) *guard {
	g := &guard{prog: -1, port: -1}
	var err error
	if g.prog, err = loadDrop(); err == nil {
		g.port, err = loadPort()
	}
	if err != nil {
		log.Debug("no BPF: host and guests are kept apart by sysctls", "err", err)
	}
	return g
}

func (g *guard) close() {
	for _, fd := range []int{g.prog, g.port} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// loadDrop loads `return TC_ACT_SHOT`.
func loadDrop() (int, error) {
	return loadProgram([]uint64{0xb7 | tcActShot<<32, 0x95}) // r0 = 2; exit
}

// loadPort loads what drops frames to 01:80:c2:00:00:02 (LACP), and those to
// 01:80:c2:00:00:00 that are no BPDUs: with STP these are the bridge's. To the
// kernel that is what their first bytes say, be it IP or ARP. It drops pause
// frames (…:01) on its own, and passes others on as we told it (forwardAll).
func loadPort() (int, error) {
	return loadProgram([]uint64{
		0x1261 | 76<<16,            // r2 = skb->data
		0x1361 | 80<<16,            // r3 = skb->data_end
		0x24bf,                     // r4 = r2
		0x0407 | 14<<32,            // r4 += length of an Ethernet header
		0x342d | 8<<16,             // if r4 > r3 goto drop
		0x2461,                     // r4 = first 4 bytes of the destination
		0x0455 | 8<<16 | groupLow,  // if they are not 01:80:c2:00 goto pass
		0x2469 | 4<<16,             // r4 = the other 2
		0x0415 | 4<<16 | 0x200<<32, // if 00:02 goto drop
		0x0455 | 5<<16,             // if not 00:00 goto pass
		0x2471 | 12<<16,            // r4 = first byte of the type
		0x0425 | 1<<16 | 5<<32,     // if more than 5, so that it is no length, goto drop
		0x0005 | 2<<16,             // goto pass
		0xb7 | tcActShot<<32,       // drop: r0 = TC_ACT_SHOT
		0x95,                       // exit
		0xb7 | 0xffffffff<<32,      // pass: r0 = TC_ACT_UNSPEC, so that mirrors are asked, too
		0x95,                       // exit
	})
}

// groupLow is 01:80:c2:00 as a little-endian immediate.
const groupLow = 0x00c28001 << 32

// portPriority comes after those of all mirrors.
const portPriority = 0xffff

// guardPorts seals new ports of guests against frames to the host that a bridge
// does not get to see.
func (d *Datapath) guardPorts(ctx context.Context, ports []network.Port) error {
	var reqs []*nl.NetlinkRequest
	var names []string
	for _, p := range ports {
		if p.Kind == network.Host {
			continue // what comes from there is the host's own
		}
		names = append(names, p.Name)
		reqs = append(reqs, newClsact(p.Index), newFilter(p.Index, clsactIngress, portPriority, d.guard.port))
	}
	if d.guard.port >= 0 {
		err := d.nl.all(ctx, reqs)
		if err == nil {
			return nil
		}
		d.log.Debug("no tc-bpf: host and guests are kept apart by sysctls", "err", err)
	}
	return d.space.in(func() error {
		var failed []error
		for _, name := range names {
			failed = append(failed, deafen(name), sysctl("ipv4", name, "arp_ignore", "8"))
		}
		return errors.Join(failed...)
	})
}

// deafen has the host's IP stack take nothing from a device, as far as sysctls
// can.
func deafen(dev string) error {
	return errors.Join(
		sysctl("ipv6", dev, "disable_ipv6", "1"),
		sysctl("ipv4", dev, "rp_filter", "1"), // no route leads here, so nothing may come from here
	)
}

// loadProgram loads a classifier and returns its descriptor.
func loadProgram(insns []uint64) (int, error) { return host.LoadBPF(bpfSchedCls, insns) }

// seal shuts a bridge device off from the host's IP stack, both ways.
func (d *Datapath) seal(ctx context.Context, s *segment) error {
	if d.guard.prog >= 0 {
		err := d.nl.all(ctx, []*nl.NetlinkRequest{
			newClsact(s.index), newFilter(s.index, clsactIngress, 1, d.guard.prog), newFilter(s.index, clsactEgress, 1, d.guard.prog),
		})
		if err == nil {
			return nil
		}
		d.log.Debug("no tc-bpf: host and guests are kept apart by sysctls", "err", err)
	}
	return d.space.in(func() error { return deafen(s.name) })
}

func sysctl(family, dev, key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net", family, "conf", dev, key), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the host has no such protocol
	}
	return err
}

func newClsact(index int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, create)
	r.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: 0xffff0000, Parent: clsact})
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("clsact")))
	return r
}

func newFilter(index int, parent, priority uint32, prog int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, create)
	proto := uint32(nl.Swap16(unix.ETH_P_ALL))
	r.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: parent, Info: priority<<16 | proto})
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")))
	opts := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	opts.AddRtAttr(tcaBPFFD, nl.Uint32Attr(uint32(prog)))
	opts.AddRtAttr(tcaBPFName, nl.ZeroTerminated("minimega"))
	opts.AddRtAttr(tcaBPFFlags, nl.Uint32Attr(bpfDirectAction))
	r.AddData(opts)
	return r
}

// upNoARP sets a bridge device up; it answers no ARP.
func upNoARP(index int) *nl.NetlinkRequest {
	const flags = unix.IFF_UP | unix.IFF_NOARP
	r := link(unix.RTM_SETLINK, 0, index, flags, flags)
	return r
}
