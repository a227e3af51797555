package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/host"
)

// startSwitch makes the switch, with one bridge to begin with.
func (l *Lab) startSwitch(ctx context.Context, o Options) error {
	s, err := open(ctx, unix.CLONE_NEWNET, l.ID+" switch", "")
	if err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	l.sw = s
	ns, err := netns.GetFromPid(s.pid())
	if err != nil {
		return err
	}
	defer ns.Close()
	if l.cables, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	_, err = l.bridge(0)
	return err
}

func bridgeName(n int) string { return "br" + strconv.Itoa(n) }

// bridge returns a bridge of the switch, which is made if it is not there.
func (l *Lab) bridge(n int) (netlink.Link, error) {
	if b, err := l.cables.LinkByName(bridgeName(n)); err == nil {
		return b, nil
	}
	off := false
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeName(n)
	b := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
	if err := l.cables.LinkAdd(b); err != nil {
		return nil, fmt.Errorf("switch: %w", err)
	}
	return b, l.cables.LinkSetUp(b)
}

// The two ends of a host's cable.
const outlet = "eth0" // in the host

func (h *Host) portName() string { return "p" + strconv.Itoa(h.n) }

// port is the cable's end in the switch.
func (h *Host) port() (netlink.Link, error) { return h.lab.cables.LinkByName(h.portName()) }

// plug gives the host its cable, address and routes.
func (h *Host) plug(mtu int) error {
	b, err := h.lab.bridge(0)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPid(h.pid())
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = h.portName(), mtu, b.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: outlet, PeerNamespace: netlink.NsFd(int(ns))}
	if err := h.lab.cables.LinkAdd(veth); err != nil {
		return err
	}
	if err := h.lab.cables.LinkSetUp(veth); err != nil {
		return err
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer handle.Close()
	return h.configure(handle, mtu)
}

func (h *Host) configure(handle *netlink.Handle, mtu int) error {
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := handle.LinkByName(outlet)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{
		IPNet:     &net.IPNet{IP: h.IP.AsSlice(), Mask: net.CIDRMask(Subnet.Bits(), 32)},
		Broadcast: net.IPv4(10, 77, 0, 255).To4(),
	}
	for _, step := range []func() error{
		func() error { return handle.LinkSetUp(lo) },
		func() error { return handle.LinkSetMTU(eth, mtu) },
		func() error { return handle.AddrAdd(eth, addr) },
		func() error { return handle.LinkSetUp(eth) },
		// Without a way out the kernel refuses to send to 255.255.255.255.
		func() error {
			return handle.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Scope: netlink.SCOPE_LINK,
				Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}})
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Cut pulls the host's cable: its interface loses the carrier.
func (h *Host) Cut() error {
	p, err := h.port()
	if err != nil {
		return err
	}
	return h.lab.cables.LinkSetDown(p)
}

// Join puts the host's cable back.
func (h *Host) Join() error {
	p, err := h.port()
	if err != nil {
		return err
	}
	return h.lab.cables.LinkSetUp(p)
}

// Split parts the hosts: those of a group reach each other and nobody else, as
// do those that no group names. No interface notices. Without groups all are
// together again.
func (l *Lab) Split(groups ...[]*Host) error {
	at := map[*Host]int{}
	for i, g := range groups {
		for _, h := range g {
			at[h] = i + 1
		}
	}
	for _, h := range l.Hosts {
		b, err := l.bridge(at[h])
		if err != nil {
			return err
		}
		p, err := h.port()
		if err != nil {
			return err
		}
		if p.Attrs().MasterIndex == b.Attrs().Index {
			continue
		}
		if err := l.cables.LinkSetMaster(p, b); err != nil {
			return err
		}
	}
	return nil
}

// Loss makes the host's cable lose a share of the frames, 0 to 1, in each
// direction, at random.
func (h *Host) Loss(share float64) error {
	if share < 0 || share > 1 {
		return fmt.Errorf("a loss of %v: want 0 to 1", share)
	}
	p, err := h.port()
	if err != nil {
		return err
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: p.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	_ = h.lab.cables.QdiscDel(qdisc) // there is none the first time
	if share == 0 {
		return nil
	}
	if err := h.lab.cables.QdiscAdd(qdisc); err != nil {
		return err
	}
	fd, err := host.LoadBPF(unix.BPF_PROG_TYPE_SCHED_CLS, losing(share))
	if err != nil {
		return err
	}
	defer os.NewFile(uintptr(fd), "bpf").Close()
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filter := &netlink.BpfFilter{Fd: fd, Name: "loss", DirectAction: true, FilterAttrs: netlink.FilterAttrs{
			LinkIndex: p.Attrs().Index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL}}
		if err := h.lab.cables.FilterAdd(filter); err != nil {
			return err
		}
	}
	return nil
}

// losing is a program for tc-bpf(8) that drops a share of the frames: struct
// bpf_insn of linux/bpf.h, as numbers.
func losing(share float64) []uint64 {
	const (
		call      = 0x85           // BPF_JMP | BPF_CALL
		mov32     = 0xb4           // BPF_ALU | BPF_MOV | BPF_K, of r0
		movReg32  = 0xbc | 0x02<<8 // BPF_ALU | BPF_MOV | BPF_X, r2 = r0
		imm64     = 0x18 | 0x01<<8 // BPF_LD | BPF_IMM | BPF_DW, r1 = constant
		jumpLower = 0xad | 0x12<<8 // BPF_JMP | BPF_JLT | BPF_X, r2 < r1
		exit      = 0x95           // BPF_JMP | BPF_EXIT
		random    = 7              // bpf_get_prandom_u32
		drop      = 2              // TC_ACT_SHOT
	)
	limit := uint64(share * (1 << 32)) // as two halves
	return []uint64{
		call | random<<32,
		movReg32,
		imm64 | limit&0xffffffff<<32, limit >> 32 << 32,
		jumpLower | 2<<16, // over the next two
		mov32,
		exit,
		mov32 | drop<<32,
		exit,
	}
}
