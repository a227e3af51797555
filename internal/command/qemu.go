package command

import (
	"context"
	"slices"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// QEMU answers questions about a QEMU binary, named by path or to be found in $PATH.
type QEMU interface {
	CPUs(ctx context.Context, qemu string) ([]string, error)
	Machines(ctx context.Context, qemu string) ([]string, error)
	NetDrivers(ctx context.Context, qemu string) ([]string, error)
	// Arguments returns the command line that a configuration leads to,
	// before and after its overrides.
	Arguments(ctx context.Context, id int, dir string, c *vm.Config) (before, after string, err error)
}

// commonDrivers are the network devices that netspecs may name while there is
// no QEMU to ask.
var commonDrivers = []string{"e1000", "e1000e", "i82559er", "ne2k_pci", "pcnet", "rtl8139", "virtio-net-pci", "vmxnet3"}

// NetDrivers returns the test by which netspecs are read.
func NetDrivers(q QEMU) func(ctx context.Context, qemu string) func(string) bool {
	return func(ctx context.Context, qemu string) func(string) bool {
		known, err := q.NetDrivers(ctx, qemu)
		if err != nil { // said when a VM is launched; an experiment can be described without QEMU
			known = commonDrivers
		}
		return func(driver string) bool { return slices.Contains(known, driver) }
	}
}

// checkCPU refuses a CPU model that QEMU does not know. `host` means the best
// there is, whatever QEMU calls that here.
func (d *Deps) checkCPU(ctx context.Context, qemu, cpu string) error {
	known, err := d.QEMU.CPUs(ctx, qemu)
	if err == nil && cpu != "host" && !slices.Contains(known, cpu) {
		err = errs.New(errs.Invalid, "invalid QEMU CPU: `%s`, see help", cpu)
	}
	return err
}

func (d *Deps) checkMachine(ctx context.Context, qemu, machine string) error {
	known, err := d.QEMU.Machines(ctx, qemu)
	if err == nil && !slices.Contains(known, machine) {
		err = errs.New(errs.Invalid, "invalid QEMU machine: `%s`, see help", machine)
	}
	return err
}
