package command

import (
	"context"
	"strconv"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// mirrors is the family that copies all frames of one interface to another.
func mirrors(d *Deps) []Command {
	vms := map[string]Completer{"vm": d.vmNames, "vm2": d.vmNames}
	return []Command{
		{Patterns: []string{"tap <mirror,> <src name> <dst name> [bridge]"}, Short: "copy all frames of a tap to another",
			Long: "The destination sees what the source sends and gets. Both stay where they are; naming the bridge is not needed.",
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.Net.Mirror(ctx, c.Str("src"), c.Str("dst")))
			}},
		{Patterns: []string{"tap <mirror,> <vm name> <interface index> <vm2 name> <interface2 index>"}, Short: "copy all frames of a VM's interface to another VM's",
			Long:  "The second VM sees what the first sends and gets, as on a switch's monitor port. Interfaces are counted from 0.",
			Scope: VMTarget, Suggest: vms, Run: d.mirrorVMs},
		{Patterns: []string{"clear tap <mirror,> [name]"}, Short: "end mirrors",
			Long: "Ends the mirror to a tap, or all of them.", Run: d.clearMirror},
		{Patterns: []string{"clear tap <mirror,> <vm name> <interface index or all>"}, Short: "end the mirrors to a VM",
			Long:  "Ends the mirror to an interface of a VM, or to `all` of its interfaces.",
			Scope: VMTarget, Suggest: vms, Run: d.clearVMMirror},
	}
}

// nic returns the interface of a VM that two arguments name.
func (d *Deps) nic(c *Call, name, index string) (vm.NetConfig, error) {
	v, err := d.VMs.Find(c.Namespace, c.Str(name))
	if err != nil {
		return vm.NetConfig{}, errs.New(errs.NotFound, "vms are not colocated or invalid vm name: %s", c.Str(name))
	}
	i, err := strconv.Atoi(c.Str(index))
	if err != nil || i < 0 || i >= len(v.Config().Networks) {
		return vm.NetConfig{}, errs.New(errs.NotFound, "no such interface %s for VM", c.Str(index))
	}
	return v.Interface(i)
}

func (d *Deps) mirrorVMs(ctx context.Context, c *Call) (*minicli.Response, error) {
	from, err := d.nic(c, "vm", "interface")
	if err != nil {
		return nil, err
	}
	to, err := d.nic(c, "vm2", "interface2")
	if err != nil {
		return nil, err
	}
	if from.Bridge != to.Bridge {
		return nil, errs.New(errs.Invalid, "interfaces on different bridges: %s and %s", from.Bridge, to.Bridge)
	}
	return done(d.Net.Mirror(ctx, from.Tap, to.Tap))
}

func (d *Deps) clearMirror(ctx context.Context, c *Call) (*minicli.Response, error) {
	if c.Has("name") {
		return done(d.Net.Unmirror(ctx, c.Str("name")))
	}
	return done(d.endMirrors(ctx, func(string) bool { return true }))
}

func (d *Deps) clearVMMirror(ctx context.Context, c *Call) (*minicli.Response, error) {
	if c.Str("interface") != "all" {
		nic, err := d.nic(c, "vm", "interface")
		if err != nil {
			return nil, err
		}
		return done(d.Net.Unmirror(ctx, nic.Tap))
	}
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	taps := map[string]bool{}
	for _, n := range v.Config().Networks {
		taps[n.Tap] = true
	}
	return done(d.endMirrors(ctx, func(to string) bool { return taps[to] }))
}

// endMirrors ends those whose destination matches.
func (d *Deps) endMirrors(ctx context.Context, match func(to string) bool) error {
	var failed []error
	for _, m := range d.Net.Mirrors() {
		if match(m.To) {
			failed = append(failed, d.Net.Unmirror(ctx, m.To))
		}
	}
	return errs.Join(failed...)
}
