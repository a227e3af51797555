package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"minimega/internal/errs"
	"minimega/internal/network"
)

const (
	dhcpTimeout = 2 * time.Second // for one answer
	dhcpRetries = 1 << 20         // until the context ends
)

// DHCP gets a lease for the outer end of a Host port (RFC 2131) and gives it
// the address, until ctx ends. Routes and name servers are not taken over: the
// answer comes from a guest. The address stays as long as the port does.
func (d *Datapath) DHCP(ctx context.Context, p network.Port) (netip.Prefix, error) {
	var client *nclient4.Client
	err := d.space.in(func() (err error) {
		client, err = nclient4.New(p.Name, nclient4.WithTimeout(dhcpTimeout), nclient4.WithRetry(dhcpRetries))
		return err
	})
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("cannot ask for an address on %s: %w", p.Name, err)
	}
	lease, err := client.Request(ctx)
	err = errors.Join(err, client.Close())
	if err != nil {
		return netip.Prefix{}, errs.WithRemedy(errs.New(errs.Unreachable, "no address by DHCP on %s: %w", p.Name, err),
			"is there a DHCP server on that VLAN?")
	}
	prefix, err := leased(lease.ACK)
	if err != nil {
		return netip.Prefix{}, err
	}
	err = d.AddIP(ctx, p, prefix)
	if errors.Is(err, errs.Exists) {
		err = nil // leased again
	}
	return prefix, err
}

// leased reads the address of an answer, which may be anything.
func leased(ack *dhcpv4.DHCPv4) (netip.Prefix, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		return netip.Prefix{}, errs.New(errs.Invalid, "the DHCP server gave an address that is none: %v", ack.YourIPAddr)
	}
	bits := 32
	if mask := ack.SubnetMask(); mask != nil {
		ones, size := mask.Size()
		if size != 32 || ones == 0 {
			return netip.Prefix{}, errs.New(errs.Invalid, "the DHCP server gave a mask that is none: %v", mask)
		}
		bits = ones
	}
	return netip.PrefixFrom(addr, bits), nil
}
