package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/basedir"
	"minimega/internal/capture"
	"minimega/internal/host"
	"minimega/internal/network/linux"
)

// nuke is the command of that name: the daemon ends as it always does, and
// then whatever an accident may have left of it goes by force.
func (d *Daemon) nuke() {
	d.nuked.Store(true)
	d.quit.Quit(0)
}

// sweep removes what is left of this base directory, and the directory with
// all that is in it. It runs while the directory is still held.
func (d *Daemon) sweep(ctx context.Context) error {
	failed := []error{d.endProcesses(ctx), d.sweepLinks(ctx)}
	return errors.Join(append(failed, host.RemoveAll(d.cfg.Base))...)
}

// endProcesses ends those that have a path below the base directory on their
// command line, and are no minimega: its clients and daemons name the directory
// itself.
func (d *Daemon) endProcesses(ctx context.Context) error {
	list, err := host.Processes()
	failed := []error{err}
	for _, p := range list {
		if p.Pid == os.Getpid() || !d.isMachine(p.Args) && !d.holdsCapture(p.Args) {
			continue
		}
		proc, err := host.AdoptProc(p.Pid)
		if err != nil {
			continue // ended
		}
		d.log.Warn("nuke: ended a process", "pid", p.Pid, "program", p.Args[0])
		failed = append(failed, proc.Kill(ctx), proc.Close())
	}
	return errors.Join(failed...)
}

// isMachine reports whether a command line is that of a machine of this base
// directory.
func (d *Daemon) isMachine(args []string) bool {
	for _, e := range d.engines {
		if dir := e.Instance(args); dir != "" && filepath.Dir(dir) == d.cfg.Base {
			return true
		}
	}
	return false
}

// holdsCapture reports whether a command line is that of the holder of a capture
// of this base directory.
func (d *Daemon) holdsCapture(args []string) bool {
	entry := capture.Holder(args)
	return entry != "" && filepath.Dir(filepath.Dir(entry)) == d.cfg.Base
}

// sweepLinks removes interfaces of this owner, and those named like taps of a
// minimega that does not live.
func (d *Daemon) sweepLinks(ctx context.Context) error {
	bases, err := basedir.InUse()
	if err != nil {
		return err
	}
	dp, err := linux.New(d.cfg.Base, d.log)
	if err != nil {
		return err
	}
	_, own, err := dp.Adopt(ctx, nil)
	others, err2 := dp.Sweep(ctx, bases)
	if all := append(own, others...); len(all) > 0 {
		d.log.Warn("nuke: removed interfaces", "interfaces", strings.Join(all, " "))
	}
	return errors.Join(err, err2, dp.Close(ctx))
}
