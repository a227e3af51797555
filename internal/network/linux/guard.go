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
)

// guard keeps guests and host apart: a bridge device hands broadcasts and
// frames to its own address up to the host's IP stack, which would answer for
// any address of the host. A program of two instructions drops them there;
// packet sockets see them before. Without BPF, sysctls shut most of it.
type guard struct {
	prog int // descriptor of the program, -1 without BPF
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
	prog, err := loadDrop()
	if err != nil {
		log.Debug("no BPF: host and guests are kept apart by sysctls", "err", err)
		return &guard{prog: -1}
	}
	return &guard{prog: prog}
}

func (g *guard) close() {
	if g.prog >= 0 {
		unix.Close(g.prog)
	}
}

// loadDrop loads `return TC_ACT_SHOT`.
func loadDrop() (int, error) {
	return loadProgram([]uint64{0xb7 | tcActShot<<32, 0x95}) // r0 = 2; exit
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
	return d.space.in(func() error {
		return errors.Join(
			sysctl("ipv6", s.name, "disable_ipv6", "1"),
			sysctl("ipv4", s.name, "rp_filter", "1"), // no route leads here, so nothing may come from here
		)
	})
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
