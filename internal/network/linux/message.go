package linux

import (
	"crypto/rand"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	create = unix.NLM_F_CREATE | unix.NLM_F_EXCL

	// forwardAll makes a bridge pass on all link-local group addresses but those
	// three that the kernel reserves (STP, pause, LACP): guests may speak LLDP or
	// 802.1X to each other. IEEE 802.1D, table 7-10.
	forwardAll = 0xfff8

	// maxLearned is how many addresses a bridge remembers, and an overlay those of
	// other hosts: a guest that sends in the names of ever more must not fill the
	// host's memory. Frames to addresses beyond go everywhere.
	maxLearned = 1 << 16

	brMaxLearned = 49 // IFLA_BR_FDB_MAX_LEARNED, Linux 6.7; others pass it by
)

// link starts a request about the device with this index (0: named by an attribute).
func link(msg, flags, index int, ifFlags, change uint32) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(msg, flags)
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index, m.Flags, m.Change = int32(index), ifFlags, change
	r.AddData(m)
	return r
}

func name(s string) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(s)) }

func u32(attr int, v uint32) *nl.RtAttr { return nl.NewRtAttr(attr, nl.Uint32Attr(v)) }

// kind returns IFLA_LINKINFO for a new device, and where its own attributes go.
func kind(s string) (info, data *nl.RtAttr) {
	info = nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(s))
	return info, info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
}

// newBridge makes a bridge that forwards at once and everything, and whose own
// address nobody can guess.
func newBridge(dev string) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("bridge")
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_GROUP_FWD_MASK, nl.Uint16Attr(forwardAll))
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))
	data.AddRtAttr(brMaxLearned, nl.Uint32Attr(maxLearned))
	r.AddData(name(dev))
	r.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, randomMAC()))
	r.AddData(info)
	return r
}

func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails
	mac[0] = mac[0]&^1 | 2
	return mac
}

// newVeth makes a pair.
func newVeth(outer, inner string) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("veth")
	peer := data.AddRtAttr(nl.VETH_INFO_PEER, nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize())
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(inner))
	r.AddData(name(outer))
	r.AddData(info)
	return r
}

// quiet keeps the kernel from giving the device an IPv6 address on its own. It
// must come before the device is up.
func quiet(index int) *nl.NetlinkRequest {
	r := link(unix.RTM_SETLINK, 0, index, 0, 0)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(nl.IN6_ADDR_GEN_MODE_NONE))
	r.AddData(spec)
	return r
}

func up(index int) *nl.NetlinkRequest {
	return link(unix.RTM_SETLINK, 0, index, unix.IFF_UP, unix.IFF_UP)
}

func down(index int) *nl.NetlinkRequest { return link(unix.RTM_SETLINK, 0, index, 0, unix.IFF_UP) }

// setMaster puts the device on a bridge, or takes it off (0).
func setMaster(index, bridge int) *nl.NetlinkRequest {
	r := link(unix.RTM_SETLINK, 0, index, 0, 0)
	r.AddData(u32(unix.IFLA_MASTER, uint32(bridge)))
	return r
}

func setMTU(index, mtu int) *nl.NetlinkRequest {
	r := link(unix.RTM_SETLINK, 0, index, 0, 0)
	r.AddData(u32(unix.IFLA_MTU, uint32(mtu)))
	return r
}

// describe leaves a word for people who run `ip link`.
func describe(index int, text string) *nl.NetlinkRequest {
	r := link(unix.RTM_SETLINK, 0, index, 0, 0)
	r.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(text)))
	return r
}

func setGroup(index int, group uint32) *nl.NetlinkRequest {
	r := link(unix.RTM_SETLINK, 0, index, 0, 0)
	r.AddData(u32(unix.IFLA_GROUP, group))
	return r
}

// deleteGroup removes all devices of a group in one go.
func deleteGroup(group uint32) *nl.NetlinkRequest {
	r := link(unix.RTM_DELLINK, 0, 0, 0, 0)
	r.AddData(u32(unix.IFLA_GROUP, group))
	return r
}

func deleteLink(index int) *nl.NetlinkRequest { return link(unix.RTM_DELLINK, 0, index, 0, 0) }

func newAddr(index int, p netip.Prefix) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_NEWADDR, create)
	family := unix.AF_INET
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	m := nl.NewIfAddrmsg(family)
	m.Prefixlen, m.Index = uint8(p.Bits()), uint32(index)
	if p.Addr().Is6() {
		m.IfAddrmsg.Flags = unix.IFA_F_NODAD // usable at once
	}
	r.AddData(m)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	if p.Addr().Is4() && p.Bits() < 31 {
		r.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	return r
}

func broadcast(p netip.Prefix) []byte {
	b := p.Addr().As4()
	for i := range b {
		host := min(max((i+1)*8-p.Bits(), 0), 8)
		b[i] |= byte(1<<host - 1)
	}
	return b[:]
}
