package linux

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	vxlanPort = 4789   // RFC 7348
	greKey    = 0x2000 // the key is there, network byte order as the kernel wants it
	tunnelTTL = 64

	// tunnelMTU is what guests expect of an Ethernet; the outer packets are
	// fragmented where the network between the hosts has no more.
	tunnelMTU = 1500

	greIgnoreDF = 19 // IFLA_GRE_IGNORE_DF
)

// newVXLAN makes one end of a point-to-point VXLAN tunnel.
func newVXLAN(dev string, remote netip.Addr, vni uint32) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("vxlan")
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(vni))
	group := nl.IFLA_VXLAN_GROUP
	if remote.Is6() {
		group = nl.IFLA_VXLAN_GROUP6
	}
	data.AddRtAttr(group, remote.AsSlice())
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, nl.BEUint16Attr(vxlanPort))
	data.AddRtAttr(nl.IFLA_VXLAN_TTL, nl.Uint8Attr(tunnelTTL))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(0)) // there is only one way to go
	r.AddData(name(dev))
	r.AddData(u32(unix.IFLA_MTU, tunnelMTU))
	r.AddData(info)
	return r
}

// newGRE makes one end of a GRE tunnel for Ethernet.
func newGRE(dev string, remote netip.Addr, key uint32) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	family := "gretap"
	if remote.Is6() {
		family = "ip6gretap"
	}
	info, data := kind(family)
	data.AddRtAttr(nl.IFLA_GRE_IFLAGS, nl.BEUint16Attr(greKey))
	data.AddRtAttr(nl.IFLA_GRE_OFLAGS, nl.BEUint16Attr(greKey))
	data.AddRtAttr(nl.IFLA_GRE_IKEY, nl.BEUint32Attr(key))
	data.AddRtAttr(nl.IFLA_GRE_OKEY, nl.BEUint32Attr(key))
	data.AddRtAttr(nl.IFLA_GRE_REMOTE, remote.AsSlice())
	data.AddRtAttr(nl.IFLA_GRE_TTL, nl.Uint8Attr(tunnelTTL))
	if remote.Is4() {
		data.AddRtAttr(nl.IFLA_GRE_PMTUDISC, nl.Uint8Attr(0))
		data.AddRtAttr(greIgnoreDF, nl.Uint8Attr(1))
	}
	r.AddData(name(dev))
	r.AddData(u32(unix.IFLA_MTU, tunnelMTU))
	r.AddData(info)
	return r
}

// newVLAN makes the interface of one tag on another interface.
func newVLAN(dev string, parent int, vlan uint16) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("vlan")
	data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(vlan))
	r.AddData(name(dev))
	r.AddData(u32(unix.IFLA_LINK, uint32(parent)))
	r.AddData(info)
	return r
}
