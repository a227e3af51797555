package command

import (
	"context"
	"strconv"

	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// vlans is the family about the names of VLANs.
func vlans(d *Deps) []Command {
	return []Command{
		{Patterns: []string{"vlans"}, Short: "show the VLAN aliases of the namespace",
			Long: "An alias gets its number when it is first used, for instance by `vm config networks`.",
			Run:  d.listVLANs},
		{Patterns: []string{"vlans <range,>", "vlans <range,> <min> <max>"}, Short: "show or set from which numbers aliases are allocated",
			Long: "Numbers are taken from min up to, but not including, max. In the default namespace this is the range of all\nnamespaces that have none of their own.",
			Run:  d.vlanRange},
		{Patterns: []string{"vlans <add,> <alias> <vlan>"}, Short: "give an alias a number of your choice",
			Long: "The alias belongs to the active namespace; the number must not be another alias'.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				n, err := vlanNumber(c.Str("vlan"))
				if err != nil {
					return nil, err
				}
				return done(d.VLANs.Add(c.Namespace, c.Str("alias"), n))
			}},
		{Patterns: []string{"vlans <blacklist,> [vlan]"}, Short: "show or add numbers that no alias may get",
			Long: "Keeps a number from being allocated, for instance because something outside uses it.",
			Run:  d.vlanBlacklist},
		{Patterns: []string{"clear vlans [prefix]"}, Short: "forget VLAN aliases",
			Long: "Forgets the aliases of the namespace, those with a prefix, or with `all` everything about VLANs in all namespaces.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				d.VLANs.Clear(c.Namespace, c.Str("prefix"))
				return done(nil)
			}},
	}
}

func (d *Deps) listVLANs(_ context.Context, c *Call) (*minicli.Response, error) {
	var rows [][]string
	for _, a := range d.VLANs.List(c.Namespace) {
		rows = append(rows, []string{a.Alias, strconv.Itoa(a.VLAN)})
	}
	return table([]string{"alias", "vlan"}, rows)
}

func (d *Deps) vlanRange(_ context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("min") {
		r := d.VLANs.Range(c.Namespace)
		return table([]string{"min", "max", "next"}, [][]string{{strconv.Itoa(r.Min), strconv.Itoa(r.Max), strconv.Itoa(r.Next)}})
	}
	low, err1 := strconv.Atoi(c.Str("min"))
	high, err2 := strconv.Atoi(c.Str("max"))
	if err1 != nil || err2 != nil {
		return nil, errs.New(errs.Invalid, "expected integer values for min/max")
	}
	return done(d.VLANs.SetRange(c.Namespace, low, high))
}

func (d *Deps) vlanBlacklist(_ context.Context, c *Call) (*minicli.Response, error) {
	if c.Has("vlan") {
		n, err := vlanNumber(c.Str("vlan"))
		if err != nil {
			return nil, err
		}
		return done(d.VLANs.Blacklist(n))
	}
	var rows [][]string
	for _, n := range d.VLANs.Blacklisted() {
		rows = append(rows, []string{strconv.Itoa(n)})
	}
	return table([]string{"vlan"}, rows)
}

func vlanNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errs.New(errs.Invalid, "expected integer VLAN")
	}
	return n, nil
}
