package linux

import (
	"hash/fnv"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/network"
)

// vni is the number of a VLAN's overlay: 12 bits for the cluster and 12 for the
// VLAN. Bridges other than the default one are kept apart by their names.
func vni(conf network.Overlay, bridge string, vlan int) uint32 {
	cluster := uint32(conf.ClusterID)
	if bridge != network.DefaultBridge {
		h := fnv.New32a()
		_, _ = h.Write([]byte(bridge))
		cluster ^= h.Sum32()%maxKey + 1
	}
	return cluster&maxKey<<12 | uint32(vlan)
}

// newOverlay makes a VXLAN device (RFC 7348) without remotes, which learns who
// is where. It lets outer packets be fragmented.
func newOverlay(dev string, local netip.Addr, six bool, vni uint32) *nl.NetlinkRequest {
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("vxlan")
	data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(vni))
	switch {
	case six && !local.IsValid():
		local = netip.IPv6Unspecified() // says which family to use
		fallthrough
	case six:
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL6, local.AsSlice())
	case local.IsValid():
		data.AddRtAttr(nl.IFLA_VXLAN_LOCAL, local.AsSlice())
	}
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, nl.BEUint16Attr(network.OverlayPort))
	data.AddRtAttr(nl.IFLA_VXLAN_TTL, nl.Uint8Attr(tunnelTTL))
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, nl.Uint8Attr(1))
	data.AddRtAttr(nl.IFLA_VXLAN_LIMIT, nl.Uint32Attr(maxLearned))
	r.AddData(name(dev))
	r.AddData(u32(unix.IFLA_MTU, tunnelMTU))
	r.AddData(info)
	return r
}

// See linux/neighbour.h: struct ndmsg and attributes.
const (
	ndaDst    = 1
	ndaLLAddr = 2
)

type ndMsg struct{ index uint32 }

func (ndMsg) Len() int { return 12 }

func (m ndMsg) Serialize() []byte {
	b := make([]byte, 12)
	b[0] = unix.AF_BRIDGE
	nl.NativeEndian().PutUint32(b[4:], m.index)
	nl.NativeEndian().PutUint16(b[8:], unix.NUD_NOARP|unix.NUD_PERMANENT)
	b[10] = unix.NTF_SELF
	return b
}

// floodTo adds a host to those that get what has no place yet: broadcasts, and
// frames to addresses not learned. Such entries are those of address zero.
func floodTo(index int, remote netip.Addr) *nl.NetlinkRequest {
	return neighbour(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, index, remote)
}

// floodNone is the way back of all floodTo.
func floodNone(index int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, 0)
	r.AddData(ndMsg{uint32(index)})
	r.AddData(nl.NewRtAttr(ndaLLAddr, make([]byte, 6)))
	return r
}

// floodNot is the way back of floodTo.
func floodNot(index int, remote netip.Addr) *nl.NetlinkRequest {
	return neighbour(unix.RTM_DELNEIGH, 0, index, remote)
}

func neighbour(msg, flags, index int, remote netip.Addr) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(msg, flags)
	r.AddData(ndMsg{uint32(index)})
	r.AddData(nl.NewRtAttr(ndaLLAddr, make([]byte, 6)))
	r.AddData(nl.NewRtAttr(ndaDst, remote.AsSlice()))
	return r
}
