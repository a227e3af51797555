package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minimega/internal/guest/cmdline"
)

const (
	dhcpTimeout  = time.Second     // for one answer
	dhcpMaxPause = 8 * time.Second // between two tries
	dhcpMinRenew = 2 * time.Second // whatever the server says
)

// keepLease gets an address by DHCP and keeps it until ctx ends (RFC 2131).
func (n *Net) keepLease(ctx context.Context, link netlink.Link) error {
	wait := 250 * time.Millisecond
	said := false
	for ctx.Err() == nil {
		lease, err := n.askLease(ctx, link)
		if err != nil {
			if !said && ctx.Err() == nil {
				n.log.Info(link.Attrs().Name + ": no DHCP server answers yet: " + err.Error())
				said = true
			}
			pause(ctx, wait)
			wait = min(2*wait, dhcpMaxPause)
			continue
		}
		wait, said = 250*time.Millisecond, false
		n.holdLease(ctx, link, lease)
	}
	return nil
}

func (n *Net) askLease(ctx context.Context, link netlink.Link) (*nclient4.Lease, error) {
	c, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(dhcpTimeout), nclient4.WithRetry(3))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	lease, err := c.Request(ctx, dhcpOptions()...)
	if err != nil {
		return nil, err
	}
	return lease, n.useLease(link, lease.ACK)
}

func dhcpOptions() []dhcpv4.Modifier {
	mods := []dhcpv4.Modifier{dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter,
		dhcpv4.OptionDomainNameServer, dhcpv4.OptionHostName, dhcpv4.OptionClasslessStaticRoute)}
	if name, err := os.Hostname(); err == nil {
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptHostName(name)))
	}
	return mods
}

// holdLease renews the lease in time; it returns when the lease is lost, and
// the address with it.
func (n *Net) holdLease(ctx context.Context, link netlink.Link, lease *nclient4.Lease) {
	for {
		life := lease.ACK.IPAddressLeaseTime(time.Hour)
		got := time.Now()
		pause(ctx, max(lease.ACK.IPAddressRenewalTime(life/2), dhcpMinRenew))
		renewed, err := n.renew(ctx, link, lease, got.Add(life))
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			n.log.Warn(link.Attrs().Name + ": DHCP lease lost: " + err.Error())
			if err := flush(link); err != nil {
				n.log.Warn(link.Attrs().Name + ": " + err.Error())
			}
			return
		}
		lease = renewed
	}
}

// renew tries until the lease ends at the given time.
func (n *Net) renew(ctx context.Context, link netlink.Link, lease *nclient4.Lease, end time.Time) (*nclient4.Lease, error) {
	for wait := time.Second; ; wait = min(2*wait, 60*time.Second) {
		fresh, err := n.renewOnce(ctx, link, lease)
		if err == nil {
			return fresh, n.useLease(link, fresh.ACK)
		}
		if ctx.Err() != nil || time.Now().Add(wait).After(end) {
			return nil, err
		}
		pause(ctx, wait)
	}
}

func (n *Net) renewOnce(ctx context.Context, link netlink.Link, lease *nclient4.Lease) (*nclient4.Lease, error) {
	c, err := nclient4.New(link.Attrs().Name, nclient4.WithTimeout(dhcpTimeout), nclient4.WithRetry(2))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Renew(ctx, lease)
}

// useLease configures what an ACK grants.
func (n *Net) useLease(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return fmt.Errorf("DHCP gave no address")
	}
	bits := 24
	if mask := ack.SubnetMask(); mask != nil {
		bits, _ = mask.Size()
	}
	prefix := netip.PrefixFrom(addr, bits)
	if err := setAddress(link, prefix, ack.IPAddressLeaseTime(time.Hour)); err != nil {
		return err
	}
	n.log.Info(link.Attrs().Name + ": " + prefix.String() + " by DHCP")
	if err := n.useRoutes(link, ack); err != nil {
		n.log.Warn(link.Attrs().Name + ": " + err.Error()) // the address is good all the same
	}
	n.useNames(link.Attrs().Name, ack)
	return announce(link.Attrs(), addr)
}

func (n *Net) useRoutes(link netlink.Link, ack *dhcpv4.DHCPv4) error {
	if routes := ack.ClasslessStaticRoute(); len(routes) > 0 { // instead of routers, RFC 3442
		for _, r := range routes {
			err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: r.Dest, Gw: r.Router,
				Flags: int(unix.RTNH_F_ONLINK)})
			if err != nil {
				return fmt.Errorf("set route to %s: %w", r.Dest, err)
			}
		}
		return nil
	}
	for _, r := range ack.Router() {
		if gw, ok := netip.AddrFromSlice(r.To4()); ok {
			return setGateway(link, gw)
		}
	}
	return nil
}

func (n *Net) useNames(iface string, ack *dhcpv4.DHCPv4) {
	var servers []netip.Addr
	for _, s := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(s.To4()); ok {
			servers = append(servers, a)
		}
	}
	n.setServers(iface, servers)
	if name := ack.HostName(); n.params.Hostname == "" && cmdline.ValidHostname(name) {
		if err := setHostname(name); err != nil {
			n.log.Warn(err.Error())
		}
	}
}
