package vm

import (
	"context"
	"errors"

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

// HotplugAdd plugs a USB disk into the VMs of a target, see Hotplugger.
func (m *Manager) HotplugAdd(ctx context.Context, namespace, target, image, version, serial string) error {
	return m.eachMachine(ctx, namespace, target, "hotplug", func(ctx context.Context, v *VM, machine Machine) error {
		h, ok := machine.(Hotplugger)
		if !ok {
			return NotSupported(v.Type, "hotplug")
		}
		return h.HotplugAdd(ctx, image, version, serial)
	})
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
