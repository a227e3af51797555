package command

import (
	"context"
	"errors"
	"net/netip"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/vlan"
	"minimega/pkg/minicli"
)

// taps is the family about the host's own interfaces on the VMs' networks.
func taps(d *Deps) []Command {
	return []Command{
		{Patterns: []string{"tap"}, Short: "show the host taps of the namespace",
			Long: "A host tap is an interface of this host on a VLAN of the VMs.",
			Run:  d.listTaps},
		{Patterns: []string{
			"tap <create,> <vlan>", "tap <create,> <vlan> name <tap name>", "tap <create,> <vlan> <dhcp,> [tap name]", "tap <create,> <vlan> ip <ip> [tap name]",
			"tap <create,> <vlan> bridge <bridge>", "tap <create,> <vlan> bridge <bridge> name [tap name]",
			"tap <create,> <vlan> bridge <bridge> <dhcp,> [tap name]", "tap <create,> <vlan> bridge <bridge> ip <ip> [tap name]"},
			Short: "connect this host to a VLAN",
			Long: "Makes an interface on this host and connects it to a VLAN, by number or alias. Its name is printed; `ip` gives it an\n" +
				"address such as 10.0.0.1/24, `dhcp` asks a server on the VLAN for one and waits for it.",
			Suggest: map[string]Completer{"vlan": d.vlanNames}, Interruptible: true, Run: d.createTap},
		{Patterns: []string{"tap <delete,> <tap name or all>"}, Short: "remove host taps",
			Long:    "Removes a host tap of the namespace, or `all` of them.",
			Suggest: map[string]Completer{"tap": d.tapNames},
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.DeleteHostTap(ctx, c.Namespace, c.Str("tap")))
			}},
		{Patterns: []string{"clear tap"}, Short: "remove the host taps of the namespace",
			Long: "Removes every host tap of the namespace.",
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.ClearTaps(ctx, c.Namespace))
			}},
	}
}

func (d *Deps) tapNames(c *Call, prefix string) []string {
	names := []string{"all"}
	for _, p := range d.Net.HostTaps(c.Namespace) {
		names = append(names, p.Name)
	}
	return withPrefix(names, prefix)
}

func (d *Deps) listTaps(_ context.Context, c *Call) (*minicli.Response, error) {
	var rows [][]string
	for _, p := range d.Net.HostTaps(c.Namespace) {
		rows = append(rows, []string{p.Bridge, p.Name, d.VLANs.Print(c.Namespace, p.VLAN)})
	}
	return table([]string{"bridge", "tap", "vlan"}, rows)
}

func (d *Deps) createTap(ctx context.Context, c *Call) (*minicli.Response, error) {
	name := c.Str("tap")
	if name == "all" {
		return nil, errs.New(errs.Invalid, "`all` is a reserved word -- cannot use for tap name")
	}
	var addr netip.Prefix
	if c.Has("ip") {
		var err error
		if addr, err = netip.ParsePrefix(c.Str("ip")); err != nil {
			return nil, errs.New(errs.Invalid, "invalid IP: `%s` (write an address with its mask, such as 10.0.0.1/24)", c.Str("ip"))
		}
	}
	v, alias, err := d.VLANs.ResolveContext(ctx, c.Namespace, c.Str("vlan"))
	if err != nil {
		return nil, err
	}
	ports, err := d.Net.Create(ctx, []network.PortSpec{{Name: name, Kind: network.Host, Bridge: c.Str("bridge"), VLAN: v, Alias: vlan.FullName(c.Namespace, alias),
		Namespace: c.Namespace, Owner: "host"}})
	if err != nil {
		return nil, err
	}
	name = ports[0].Name
	switch {
	case addr.IsValid():
		err = d.Net.AddIP(ctx, name, addr.String())
	case c.Chose("dhcp"):
		_, err = d.Net.DHCP(ctx, name)
	}
	if err != nil { // half a tap is none; ctx may have ended, the way back must not
		return nil, errors.Join(err, d.Net.Delete(context.WithoutCancel(ctx), name))
	}
	return text(name)
}

// ClearTaps removes the host taps of a namespace.
func (d *Deps) ClearTaps(ctx context.Context, ns string) error {
	return d.Net.DeleteHostTap(ctx, ns, "all")
}
