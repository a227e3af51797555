package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"minimega/internal/errs"
)

// withMachine runs do with the machine of a VM, whose turn it takes.
func (v *VM) withMachine(ctx context.Context, do func(Machine) error) error {
	if err := v.take(ctx); err != nil {
		return err
	}
	defer v.give()
	machine, err := v.answering()
	if err != nil {
		return err
	}
	return do(machine)
}

// eachMachine runs do on the machine of every VM of a target that has one.
func (m *Manager) eachMachine(ctx context.Context, namespace, target, step string, do func(context.Context, *VM, Machine) error) error {
	vms, err := m.targets(namespace, target, inState(Building|Running|Paused))
	if err != nil {
		return err
	}
	return each(ctx, vms, func(ctx context.Context, v *VM) error {
		return errs.AtStep(v.withMachine(ctx, func(machine Machine) error { return do(ctx, v, machine) }), step)
	})
}

// HotplugAdd plugs a USB disk into the VMs of a target, see Hotplugger. Only
// one can have it: they are asked in turn, and the others are told which has.
func (m *Manager) HotplugAdd(ctx context.Context, namespace, target, image, version, serial string) error {
	vms, err := m.targets(namespace, target, inState(Building|Running|Paused))
	if err != nil {
		return err
	}
	var failed []error
	for _, v := range vms {
		err := v.withMachine(ctx, func(machine Machine) error {
			h, ok := machine.(Hotplugger)
			if !ok {
				return NotSupported(v.Type, "hotplug")
			}
			err := h.HotplugAdd(ctx, image, version, serial)
			if errors.Is(err, errs.State) { // the engine sees a lock, and not whose it is
				return cmp.Or(m.unused(image, v), err)
			}
			return err
		})
		failed = append(failed, errs.InVM(errs.AtStep(err, "hotplug"), v.Name))
	}
	return errs.Join(failed...)
}

// unused refuses an image that a VM of this host has open, and names that.
func (m *Manager) unused(image string, forVM *VM) error {
	for _, v := range m.List("") {
		machine, err := v.Machine()
		if err != nil {
			continue
		}
		as, free := use(v, machine, image)
		if as == "" {
			continue
		}
		who := v.Name
		if v.Namespace != forVM.Namespace {
			who += " of namespace " + v.Namespace
			free = "namespace " + v.Namespace + " " + free
		}
		return errs.WithRemedy(errs.New(errs.State, "disk image %s is in use: VM %s has it as %s", image, who, as),
			fmt.Sprintf("plug a copy of the image into %s, or `%s` first", forVM.Name, free))
	}
	return nil
}

// use tells as what a VM has an image open, "" if it has not, and the command
// that ends that.
func use(v *VM, machine Machine, image string) (as, free string) {
	if h, ok := machine.(Hotplugger); ok {
		for _, d := range h.Hotplugged() {
			if d.File == image {
				return fmt.Sprintf("USB disk %d", d.ID), fmt.Sprintf("vm hotplug remove %s %d", v.Name, d.ID)
			}
		}
	}
	c := v.Config()
	for i, d := range c.Disks {
		if d.Path == image {
			return fmt.Sprintf("disk %d", i), "vm kill " + v.Name
		}
	}
	if c.CdromPath == image {
		return "CD", "vm cdrom eject " + v.Name
	}
	return "", ""
}

// HotplugRemove pulls a USB disk, or with all set every one, out of the VMs of
// a target. VMs without any are no error when wild is set.
func (m *Manager) HotplugRemove(ctx context.Context, namespace, target string, id int, all, wild bool) error {
	none := errs.New(errs.NotFound, "no hotplug devices to remove")
	remove := func(ctx context.Context, v *VM, machine Machine) error {
		h, ok := machine.(Hotplugger)
		if !ok {
			return NotSupported(v.Type, "hotplug")
		}
		if !all {
			return h.HotplugRemove(ctx, id)
		}
		disks := h.Hotplugged()
		if len(disks) == 0 {
			return none
		}
		var failed []error
		for _, d := range disks {
			failed = append(failed, h.HotplugRemove(ctx, d.ID))
		}
		return errs.Join(failed...)
	}
	vms, err := m.targets(namespace, target, inState(Building|Running|Paused))
	if err != nil {
		return err
	}
	if len(vms) == 1 && !wild { // clients match the texts
		return vms[0].withMachine(ctx, func(machine Machine) error { return remove(ctx, vms[0], machine) })
	}
	return each(ctx, vms, func(ctx context.Context, v *VM) error {
		err := v.withMachine(ctx, func(machine Machine) error { return remove(ctx, v, machine) })
		if wild && (errors.Is(err, errs.NotFound) || errors.Is(err, errs.Unsupported)) {
			return nil
		}
		return err
	})
}

// HotplugRow is a USB disk of a VM.
type HotplugRow struct {
	VM string
	HotplugDisk
}

// Hotplugged lists the USB disks of the VMs of a namespace, by VM and number.
func (m *Manager) Hotplugged(namespace string) []HotplugRow {
	var rows []HotplugRow
	for _, v := range m.List(namespace) {
		machine, err := v.Machine()
		if err != nil {
			continue
		}
		if h, ok := machine.(Hotplugger); ok {
			for _, d := range h.Hotplugged() {
				rows = append(rows, HotplugRow{v.Name, d})
			}
		}
	}
	return rows
}

// ChangeCD changes the CD of the VMs of a target, see CDChanger.
func (m *Manager) ChangeCD(ctx context.Context, namespace, target, image string, force bool) error {
	return m.eachMachine(ctx, namespace, target, "cdrom", func(ctx context.Context, v *VM, machine Machine) error {
		c, ok := machine.(CDChanger)
		if !ok {
			return NotSupported(v.Type, "cdrom")
		}
		if err := c.ChangeCD(ctx, image, force); err != nil {
			return err
		}
		v.edit(func(c *Config) { c.CdromPath = image })
		return nil
	})
}
