package command

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
	"minimega/pkg/ranges"
)

// vmHotplug is the family that changes the devices of VMs while they run.
func vmHotplug(d *Deps) []Command {
	target := map[string]Completer{"vm": d.vmTargets, "filename": d.fileNames, "path": d.fileNames}
	return []Command{
		{
			Patterns: []string{"vm hotplug"},
			Short:    "show the USB disks that were plugged in",
			Long:     "A row per disk that `vm hotplug add` plugged into a VM and that is still there.",
			Scope:    VMTarget, Run: d.hotplugged,
		},
		{
			Patterns: []string{"vm hotplug <add,> <vm target> <filename> [version]", "vm hotplug <add,> <vm target> <filename> serial <serial> [version]"},
			Short:    "plug a USB disk into VMs",
			Long: "The image appears in the guest as a USB drive. The version is that of USB: 1.1 (the default), 2.0 or 3.0.\n" +
				"An image has one user who writes to it: plug it into one VM at a time.\n" + targetHelp,
			Scope: VMTarget, Suggest: target, Run: d.hotplugAdd,
		},
		{
			Patterns: []string{"vm hotplug <remove,> <vm target> <disk id or all>"},
			Short:    "pull a USB disk out of VMs",
			Long:     "Pulls out the disk of that number (see `vm hotplug`), or all.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target, Run: d.hotplugRemove,
		},
		{
			Patterns: []string{"vm cdrom <eject,> <vm target> [force,]"},
			Short:    "take the CD out of VMs",
			Long:     "A guest may have locked the drive; `force` takes the CD out all the same.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.VMs.ChangeCD(ctx, c.Namespace, c.Str("vm"), "", c.Chose("force")))
			},
		},
		{
			Patterns: []string{"vm cdrom <change,> <vm target> <path> [force,]"},
			Short:    "put a CD into VMs",
			Long:     "The one that is in the drive, if any, comes out first; `force` does so when the guest has locked the drive.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.VMs.ChangeCD(ctx, c.Namespace, c.Str("vm"), d.filesPath(c.Str("path")), c.Chose("force")))
			},
		},
		{
			Patterns: []string{"vm net <add,> <vm target> [netspec]..."},
			Short:    "plug network interfaces into VMs",
			Long: "Each netspec is written as in `vm config net`. The interfaces come after those that the VM has.\n" +
				"A KVM VM with such interfaces can be saved only after it was launched anew. In a container they are `veth1` and so on,\n" +
				"not set up, and without an address.\n" + targetHelp,
			Scope: VMTarget, Suggest: target, Run: d.netAdd,
		},
		d.bond(), d.clearBond(),
	}
}

func (d *Deps) hotplugged(_ context.Context, c *Call) (*minicli.Response, error) {
	rows := [][]string{}
	for _, r := range d.VMs.Hotplugged(c.Namespace) {
		rows = append(rows, []string{r.VM, strconv.Itoa(r.ID), r.File, r.Version})
	}
	return table([]string{"name", "id", "file", "version"}, rows)
}

func (d *Deps) hotplugAdd(ctx context.Context, c *Call) (*minicli.Response, error) {
	return done(d.VMs.HotplugAdd(ctx, c.Namespace, c.Str("vm"), d.filesPath(c.Str("filename")), c.Str("version"), c.Str("serial")))
}

func (d *Deps) hotplugRemove(ctx context.Context, c *Call) (*minicli.Response, error) {
	which := c.Str("disk")
	id, err := strconv.Atoi(which)
	if err != nil && which != "all" {
		return nil, errs.New(errs.Invalid, "invalid disk: `%s`", which)
	}
	words, err := ranges.Split(c.Str("vm"))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	return done(d.VMs.HotplugRemove(ctx, c.Namespace, c.Str("vm"), id, which == "all", slices.Contains(words, "all")))
}

func (d *Deps) netAdd(ctx context.Context, c *Call) (*minicli.Response, error) {
	specs := c.List("netspec")
	if len(specs) == 0 {
		return nil, errs.New(errs.Invalid, "no netspec given: write [bridge,]vlan[,mac][,driver][,qinq]")
	}
	if _, err := d.VMs.Targets(c.Namespace, c.Str("vm")); err != nil {
		return nil, err // before an alias gets a VLAN
	}
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		nets, err := ns.ParseNetworks(ctx, specs)
		if err != nil {
			return nil, err
		}
		return done(d.VMs.AddNets(ctx, c.Namespace, c.Str("vm"), nets))
	})
}

// bond checks what can be checked and says that there are no bonds.
func (d *Deps) bond() Command {
	const head = "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> "
	return Command{
		Patterns: []string{
			head + "<active,passive,off> [qinq,]", head + "<active,passive,off> name <name> [qinq,]",
			head + "<active,passive> <no-lacp-fallback,> [qinq,]", head + "<active,passive> <no-lacp-fallback,> name <name> [qinq,]",
		},
		Short: "join network interfaces of VMs to one",
		Long:  "Bonds interfaces (indexes joined by commas) of VMs on a bridge of Open vSwitch. Linux bridges cannot.\n" + targetHelp,
		Scope: VMTarget, Suggest: map[string]Completer{"vm": d.vmTargets},
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			vms, err := d.VMs.Targets(c.Namespace, c.Str("vm"))
			if err != nil {
				return nil, err
			}
			if c.Chose("balance-tcp") && c.Chose("off") {
				return nil, errs.New(errs.Invalid, "LACP mode must be set to active or passive for balance-tcp bond mode")
			}
			for _, v := range vms {
				if err := checkBond(v, c.Str("interface")); err != nil {
					return nil, errs.InVM(err, v.Name)
				}
			}
			return nil, vm.NoBonds()
		},
	}
}

func checkBond(v *vm.VM, indexes string) error {
	bridge := ""
	words := strings.Split(indexes, ",")
	for i, w := range words {
		n, err := strconv.Atoi(w)
		if err != nil || len(words) < 2 {
			return errs.New(errs.Invalid, "invalid interface indexes: `%s` (two or more numbers joined by commas)", indexes)
		}
		nets := v.Config().Networks
		if n < 0 || n >= len(nets) {
			return errs.New(errs.NotFound, "no network %d, VM only has %d networks", n, len(nets))
		}
		if i > 0 && nets[n].Bridge != bridge {
			return errs.New(errs.Invalid, "interfaces being bonded are not on the same bridge")
		}
		bridge = nets[n].Bridge
	}
	return nil
}

func (d *Deps) clearBond() Command {
	return Command{
		Patterns: []string{"clear vm net bond <vm target> [name]"},
		Short:    "take bonds of VMs apart",
		Long:     "Takes the bond of that name apart, or all.\n" + targetHelp,
		Scope:    VMTarget, Suggest: map[string]Completer{"vm": d.vmTargets},
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			vms, err := d.VMs.Targets(c.Namespace, c.Str("vm"))
			if err != nil || !c.Has("name") {
				return done(err)
			}
			var failed []error
			for _, v := range vms {
				failed = append(failed, errs.New(errs.NotFound, "bond %s doesn't exist on VM %s", c.Str("name"), v.Name))
			}
			return done(errs.Join(failed...))
		},
	}
}
