package namespace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
)

// LaunchScript is the name of the script that brings a saved namespace back.
const LaunchScript = "launch.mm"

// SavedDir holds what is saved under no path of its own, in the files directory.
const SavedDir = "saved"

// SaveProgress tells how many VMs of the last save are written.
type SaveProgress struct{ Completed, Total int }

// saveTick is how often a save looks at its VMs.
const saveTick = 20 * time.Millisecond

// saveDir pauses the VMs of this host and writes them to a new directory, and
// then, unless finish is nil, the script that finish makes of the commands
// which launch them again. The directory appears when it is complete; a save
// that fails leaves nothing. The VMs stay paused. It returns these commands.
func (n *Namespace) saveDir(ctx context.Context, dir, schedule string, progress func(SaveProgress), finish func(vms string) (string, error)) (vms string, err error) {
	if err := fresh(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", errs.Wrap(errs.Invalid, err)
	}
	part, err := claimPart(filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+partSuffix))
	if err != nil {
		return "", err
	}
	defer part.Close()
	vms, err = n.saveInto(ctx, part.Name(), dir, schedule, progress)
	if err == nil && finish != nil {
		var script string
		if script, err = finish(vms); err == nil {
			err = host.WriteFile(filepath.Join(part.Name(), LaunchScript), []byte(script), 0o644)
		}
	}
	if err == nil {
		err = os.Rename(part.Name(), dir)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(part.Name()))
	}
	return vms, nil
}

// fresh refuses a place where something is.
func fresh(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return errs.New(errs.Exists, "saved VM with this name already exists")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// script makes a whole script of the commands that launch VMs.
func (n *Namespace) script(vms string) (string, error) {
	if vms == "" {
		return "", errs.New(errs.State, "no VM of namespace %s runs or is paused: there is nothing to save", n.Name)
	}
	return fmt.Sprintf("namespace %s\nns queueing true\n", n.Name) + vms + "vm launch\nvm start all\nshell sleep 10\nvm stop all\nvm start all\n", nil
}

// partSuffix ends the name of what is being saved, which a dot begins.
const partSuffix = ".part"

// dropParts removes from a directory what a daemon that was killed had saved by
// half.
func dropParts(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	failed := []error{err}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), partSuffix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		part, err := claimPart(path)
		if errors.Is(err, errs.State) {
			continue // of another daemon that has the same files
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(path), part.Close())
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// claimPart makes an empty directory that is ours until it is closed. One that
// was left by a daemon that was killed is taken over.
func claimPart(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errs.Wrap(errs.Permission, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.Permission, err)
	}
	ours, err := host.Claim(f, host.ClaimTime)
	if st, e := f.Stat(); ours && e == nil {
		there, e := os.Stat(path)
		ours = e == nil && os.SameFile(st, there) // or else its owner has just finished with it
	}
	if !ours {
		return nil, errors.Join(errs.New(errs.State, "another command is saving to this name"), err, f.Close())
	}
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(path, name)))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// SaveProgress tells how far the last save is.
func (n *Namespace) SaveProgress() SaveProgress { n.mu.Lock(); defer n.mu.Unlock(); return n.saving }

// saveInto writes the VMs to the directory part, which will be called dir, and
// returns the commands that launch them again, on the host schedule if it is
// not empty.
func (n *Namespace) saveInto(ctx context.Context, part, dir, schedule string, progress func(SaveProgress)) (string, error) {
	vms := n.registry.opts.VMs
	if err := vms.Stop(ctx, n.Name, "all"); err != nil {
		return "", err
	}
	var script strings.Builder
	var waiting []*vm.VM
	var failed []error
	for _, v := range vms.List(n.Name) {
		if !v.State().Alive() {
			continue
		}
		err := vms.Save(ctx, n.Name, strconv.Itoa(v.ID), savedFiles(part, v))
		switch {
		case err == nil:
			waiting = append(waiting, v)
		case !errors.Is(err, errs.Unsupported): // those start anew
			failed = append(failed, err)
		}
		scriptVM(&script, v, savedFiles(dir, v), schedule, err == nil)
	}
	failed = append(failed, n.awaitSaved(ctx, waiting, progress))
	return script.String(), errs.Join(failed...)
}

func savedFiles(dir string, v *vm.VM) vm.SaveFiles {
	base := filepath.Join(dir, v.Name)
	return vm.SaveFiles{State: base + ".state", Disk: base + ".hdd"}
}

// scriptVM writes the commands that launch a VM again.
func scriptVM(b *strings.Builder, v *vm.VM, files vm.SaveFiles, schedule string, saved bool) {
	b.WriteString("clear vm config\n")
	c := v.Config().Clone()
	if schedule != "" { // where its files are
		c.Schedule, c.Colocate = schedule, ""
	}
	if saved {
		c.MigratePath = files.State
		for i := range c.Disks {
			c.Disks[i].Path = files.DiskPath(i)
		}
	}
	for _, line := range vm.Lines(c, v.Type) {
		b.WriteString(line + "\n")
	}
	fmt.Fprintf(b, "vm launch %s %q\n", v.Type, v.Name)
}

// awaitSaved waits until the saves of all VMs have ended.
func (n *Namespace) awaitSaved(ctx context.Context, waiting []*vm.VM, progress func(SaveProgress)) error {
	total := len(waiting)
	tick := time.NewTicker(saveTick)
	defer tick.Stop()
	var failed []error
	for {
		var still []*vm.VM
		for _, v := range waiting {
			status, err := v.Saved()
			if err == nil && status.Status == vm.SaveActive {
				still = append(still, v)
				continue
			}
			failed = append(failed, errs.InVM(errors.Join(err, status.Err), v.Name))
		}
		waiting = still
		progress(SaveProgress{Completed: total - len(waiting), Total: total})
		if len(waiting) == 0 {
			return errs.Join(failed...)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errs.Join(append(failed, ctx.Err())...)
		}
	}
}
