package node

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// iflaInetConf and inetForwarding are IFLA_INET_CONF and
// IPV4_DEVCONF_FORWARDING of the kernel's headers.
const (
	iflaInetConf   = 1
	inetForwarding = 1
)

// forward lets the interface pass on packets for others. By netlink, for in a
// container /proc/sys can only be read.
func forward(link netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(iflaInetConf, nil).AddRtAttr(inetForwarding, nl.Uint32Attr(1))
	req.AddData(spec)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return nil
}
