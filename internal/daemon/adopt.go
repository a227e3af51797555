package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/image"
	"minimega/internal/network"
	"minimega/internal/vlan"
)

// A daemon that was killed leaves its machines, interfaces and files. The next
// one on the same base directory takes them over, each owner from its own
// files, before anybody can connect; with -force it removes them. What goes
// wrong with a single thing is logged, and is no reason not to start.

// vlanNames takes over aliases and ranges, or sets the range of the command line.
func (d *Daemon) vlanNames(vlans *vlan.Registry) error {
	low, high, err := vlan.ParseRange(d.cfg.VLANRange)
	if err != nil {
		return err
	}
	if d.cfg.Force {
		d.removed(vlans.Discard())
		return vlans.SetRange(vlan.Default, low, high)
	}
	adopted, err := vlans.Adopt()
	if err != nil {
		d.log.Warn("VLANs of an earlier minimega could not all be taken over", "err", err)
	}
	if adopted {
		return nil
	}
	return vlans.SetRange(vlan.Default, low, high)
}

// adopt takes over, or with -force removes, what an earlier daemon left.
func (d *Daemon) adopt(ctx context.Context, deps *command.Deps) error {
	if err := errors.Join(host.RemoveTemps(d.cfg.Base), host.RemoveTemps(cacheDir(d.cfg.Base))); err != nil {
		d.log.Warn("temporary files of an earlier minimega remain", "err", err)
	}
	if d.cfg.Force {
		return d.discard(ctx, deps)
	}
	if err := deps.NS.DropHalfSaved(); err != nil {
		d.log.Warn("what an earlier minimega saved by half remains", "err", err)
	}
	vms, err := deps.VMs.Adopt(ctx)
	if err != nil {
		d.log.Warn("VMs of an earlier minimega could not all be taken over", "err", err)
	}
	for _, l := range vms.Lost {
		d.log.Warn("removed a VM that an earlier minimega left half made", "vm", l.Name, "id", l.ID, "namespace", l.Namespace, "reason", l.Reason)
	}
	ports := deps.VMs.Ports()
	links, err := deps.Net.Adopt(ctx, ports)
	if err != nil {
		d.log.Warn("the network of an earlier minimega could not all be taken over", "err", err)
	}
	deps.VMs.LosePorts(func(tap string) bool { _, ok := deps.Net.Port(tap); return ok })
	if err := releaseGone(ctx, deps, ports); err != nil {
		d.log.Warn("removing the taps of machines that ended meanwhile", "err", err)
	}
	if len(links) > 0 {
		d.log.Info("removed interfaces that an earlier minimega left", "interfaces", strings.Join(links, " "))
	}
	if vms.Running+vms.Ended > 0 {
		d.log.Info("took over the VMs of an earlier minimega", "running", vms.Running, "ended", vms.Ended)
	}
	deps.Adopted(ctx)
	left, err := d.jobs.Left()
	if err != nil {
		d.log.Warn("background processes of an earlier minimega may be left", "err", err)
	}
	for _, l := range left {
		d.log.Warn("a process of an earlier minimega runs on by itself; it ends with this one", "process", l)
	}
	return nil
}

// releaseGone has the network forget ports of VMs that ended, and let go of them,
// before it knew of them.
func releaseGone(ctx context.Context, deps *command.Deps, adopted []network.PortSpec) error {
	still := map[string]bool{}
	for _, p := range deps.VMs.Ports() {
		still[p.Name] = true
	}
	var failed []error
	for _, p := range adopted {
		if still[p.Name] {
			continue
		}
		if err := deps.Net.Release(ctx, p.Name); !errors.Is(err, errs.NotFound) { // or else it knew in time
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// discard ends and removes everything, and says what: also when it cannot go on.
func (d *Daemon) discard(ctx context.Context, deps *command.Deps) error {
	background := func(context.Context) ([]string, error) { return d.jobs.Discard() }
	for _, end := range []func(context.Context) ([]string, error){deps.VMs.Discard, deps.Net.Discard, deps.Forgotten, background, d.forgetShared} {
		lines, err := end(ctx)
		d.removed(lines)
		if err != nil {
			return fmt.Errorf("-force: %w", err)
		}
	}
	store := filepath.Join(d.cfg.Base, image.DirName)
	if _, err := os.Stat(store); err == nil {
		d.say("kept the images in " + store)
	}
	return nil
}

func (d *Daemon) forgetShared(context.Context) ([]string, error) {
	return command.ForgetShared(d.sharedPath())
}

// removed tells what -force removed, a line each.
func (d *Daemon) removed(lines []string) {
	for _, l := range lines {
		d.log.Warn("-force: removed what an earlier minimega left", "removed", l)
		d.say("removed " + l)
	}
}

func (d *Daemon) say(line string) {
	if d.cfg.Say != nil {
		d.cfg.Say(line)
	}
}
