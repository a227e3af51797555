package daemon

import (
	"context"
	"slices"
	"strings"

	"minimega/internal/basedir"
	"minimega/internal/errs"
	"minimega/internal/guest"
	"minimega/internal/host"
	"minimega/internal/rootless"
	"minimega/internal/vm"
)

// checks are what `check` looks at, each owner's among them.
func (d *Daemon) checks(vms *vm.Manager) []host.Check {
	basic := host.BasicChecks(d.cfg.Base)
	for i := range basic {
		// Containers do without taps and QEMU's tools, and without root there may
		// be nothing else.
		basic[i].Optional = basic[i].Optional || rootless.Inside() && slices.Contains([]string{"tun", "qemu-img"}, basic[i].Name)
	}
	if rootless.Inside() { // without it containers have one user only
		mapper := host.Program("newuidmap", "uidmap")
		mapper.Optional = true
		basic = append(basic, mapper)
	}
	return append(append(basic, host.Tools(host.FindProgram)...),
		host.QEMU(),
		host.Check{Name: "kvm", Optional: true, Run: d.checkKVM},
		host.Check{Name: "guest kernel", Optional: true, Run: func(context.Context) error {
			_, err := guest.FindKernel()
			return err
		}},
		host.Check{Name: "containers", Optional: true, Run: d.boxes.Diagnose},
		host.OpenFiles(),
		host.Firewall(),
		host.Check{Name: "half made VMs", Optional: true,
			Run: func(context.Context) error { return lostVMs(vms.Lost()) },
			Fix: func(context.Context) error { vms.ForgetLost(); return nil }},
		host.Check{Name: "leftovers", Optional: true, Run: d.checkOrphans},
	)
}

func (d *Daemon) checkKVM(ctx context.Context) error {
	s := d.kvm.KVM(ctx)
	if s.Works {
		return nil
	}
	return errs.WithRemedy(errs.New(errs.Unsupported, "guests run without KVM, many times slower: %s", s.Reason),
		"use a host whose processor has virtualisation enabled, or nested virtualisation that works")
}

// lostVMs tells of VMs that were removed when this daemon started.
func lostVMs(lost []vm.Lost) error {
	if len(lost) == 0 {
		return nil
	}
	var names []string
	for _, l := range lost {
		names = append(names, l.Name)
	}
	return errs.WithRemedy(errs.New(errs.State, "an earlier minimega was killed while it made %s; what there was of them has been removed", strings.Join(names, ", ")),
		"launch them again; `check fix` forgets this")
}

// checkOrphans tells of interfaces of daemons that do not run any more. They
// may be in use by their VMs, so that they are not ours to remove.
func (d *Daemon) checkOrphans(ctx context.Context) error {
	bases, err := basedir.InUse()
	if err != nil {
		return err
	}
	names, err := d.links.Orphans(ctx, bases)
	if err != nil || len(names) == 0 {
		return err
	}
	const most = 8
	more := ""
	if len(names) > most {
		names, more = names[:most], " …"
	}
	return errs.WithRemedy(errs.New(errs.State, "interfaces are left of a minimega that does not run any more: %s%s", strings.Join(names, " "), more),
		"start minimega on its base directory again, which takes them over; or remove them with `ip link delete`")
}
