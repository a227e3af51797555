package linux

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// cables makes the devices of all ports of kind Container: pairs of which one
// end comes into being in the container's namespace. Moving it there later
// would cost the kernel several grace periods.
func (b *building) cables(ctx context.Context) error {
	var todo []int
	for i := range b.ports {
		if b.ports[i].Kind == network.Container {
			todo = append(todo, i)
		}
	}
	for vanished := 0; len(todo) > 0; {
		again, ghosts, err := b.tryCables(ctx, todo, vanished < maxVanished)
		if err != nil {
			return err
		}
		todo = again
		if ghosts {
			vanished++
		}
	}
	return nil
}

// maxVanished is how often a pair is tried whose name is taken by a device that
// has gone when one looks, as those of an earlier daemon's containers may. What
// is taken may also be the name inside, for good.
const maxVanished = 10

// tryCables makes pairs in one batch, and returns those whose names turned out
// to be taken and that can try others: also, if patient, by a device that is not
// there, a ghost.
func (b *building) tryCables(ctx context.Context, todo []int, patient bool) (again []int, ghosts bool, err error) {
	var reqs []*nl.NetlinkRequest
	names := make([]string, len(todo))
	for i, at := range todo {
		p := &b.ports[at]
		if names[i] = p.Name; p.Name == "" {
			names[i] = b.d.autoName()
		}
		r, err := b.cable(at, names[i])
		if err != nil {
			return nil, false, err
		}
		reqs = append(reqs, r)
	}
	for i, failed := range b.d.nl.do(ctx, reqs) {
		p := &b.ports[todo[i]]
		switch {
		case failed == nil:
			index, err1 := b.d.space.index(names[i])
			p.Name, p.Index, p.Space = names[i], index, nil
			b.made = append(b.made, index)
			err = errors.Join(err, err1)
		case errors.Is(failed, unix.EEXIST) && p.Name == "" && b.d.space.exists(names[i]):
			again = append(again, todo[i])
		case errors.Is(failed, unix.EEXIST) && p.Name == "" && patient:
			again, ghosts = append(again, todo[i]), true
		case err != nil: // one error is enough
		case errors.Is(failed, unix.EEXIST) && b.d.space.exists(names[i]):
			err = taken(p.Name)
		case errors.Is(failed, unix.EEXIST):
			err = errs.WithRemedy(errs.New(errs.Exists, "the container has an interface %s already", p.Inside), "have it renamed or removed there")
		case errors.Is(failed, unix.EADDRNOTAVAIL):
			err = errs.New(errs.Invalid, "%s cannot be the address of an interface: it is that of a group, or zero", p.MAC)
		default:
			err = fmt.Errorf("cannot create tap %s: %w", names[i], missing(failed, "veth"))
		}
	}
	return again, ghosts, err
}

// cable is the request for the pair of a port. An end with an MTU unlike the
// segment's would lose frames.
func (b *building) cable(at int, tap string) (*nl.NetlinkRequest, error) {
	p, mtu := &b.ports[at], 0
	if p.Space == nil || p.Inside == "" {
		return nil, errs.New(errs.Internal, "a container's port needs its network namespace")
	}
	if s := b.segments[at]; s != nil {
		mtu = s.mtu
	}
	r := link(unix.RTM_NEWLINK, create, 0, 0, 0)
	info, data := kind("veth")
	peer := data.AddRtAttr(nl.VETH_INFO_PEER, nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize())
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(p.Inside))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(p.Space.Fd())))
	if p.MAC != "" {
		mac, err := net.ParseMAC(p.MAC)
		if err != nil || len(mac) != 6 {
			return nil, errs.New(errs.Invalid, "not the address of an Ethernet interface: %q", p.MAC)
		}
		peer.AddRtAttr(unix.IFLA_ADDRESS, mac)
	}
	if mtu != 0 {
		peer.AddRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))
	}
	r.AddData(name(tap))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(b.d.group)))
	r.AddData(info)
	return r, nil
}
