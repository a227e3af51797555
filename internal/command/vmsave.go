package command

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

const saveHelp = "Pauses the VM and writes its disks and its state to files: NAME.hdd (further disks NAME.hdd.1, …) and NAME.state.\n" +
	"The command returns when that has begun; without arguments it shows how far each save is. Why one failed tells `vm why`.\n" +
	"The files get their names when everything is complete, so a save that fails leaves an earlier one as it was. It\n" +
	"goes on when minimega is killed, and the next one completes it. `vm start` lets the VM run on then.\n" +
	"To go on from a save: `vm config state NAME.state`, `vm config disks NAME.hdd`, the rest of the configuration as it was, and launch.\n"

// vmSave is the family that writes VMs to files.
func vmSave(d *Deps) []Command {
	name := map[string]Completer{"vm": d.vmNames, "filename": d.fileNames, "state": d.fileNames, "disk": d.fileNames}
	return []Command{
		{
			Patterns: []string{"vm save", "vm save <vm name>", "vm save <vm name> <filename>"},
			Short:    "save a VM to files", Scope: VMTarget, Suggest: name, Run: d.saveVM,
			Long: saveHelp + "A file name that is not absolute lies in the files directory; without one it is `saved/` and the VM's name.",
		},
		{
			Patterns: []string{"vm snapshot", "vm snapshot <vm name> <state filename> <disk filename>"},
			Short:    "save a VM to two files named one by one", Scope: VMTarget, Suggest: name, Run: d.saveVM,
			Long: saveHelp + "Here the files for the state and the first disk are called exactly as given.",
		},
		{
			Patterns: []string{"vm migrate", "vm migrate <vm name> <filename>"},
			Short:    "save a VM to files, to go on elsewhere", Scope: VMTarget, Suggest: name, Run: d.saveVM,
			Long: saveHelp + "A file name that is not absolute lies in the files directory.",
		},
	}
}

func (d *Deps) saveVM(ctx context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("vm") {
		return d.savings(c)
	}
	if c.Has("state") {
		return done(d.VMs.Save(ctx, c.Namespace, c.Str("vm"), vm.SaveFiles{State: d.filesPath(c.Str("state")), Disk: d.filesPath(c.Str("disk"))}))
	}
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	base := filepath.Join(d.Files, namespace.SavedDir, v.Name)
	if c.Has("filename") {
		base = d.filesPath(c.Str("filename"))
	}
	return done(d.VMs.Save(ctx, c.Namespace, strconv.Itoa(v.ID), saveFiles(base)))
}

func saveFiles(base string) vm.SaveFiles {
	return vm.SaveFiles{State: base + ".state", Disk: base + ".hdd"}
}

func (d *Deps) savings(c *Call) (*minicli.Response, error) {
	rows := [][]string{}
	failed := map[string]*vm.Failure{}
	for _, s := range d.VMs.Savings(c.Namespace) {
		rows = append(rows, []string{strconv.Itoa(s.ID), s.Name, s.Status, fmt.Sprintf("%.2f", s.Percent)})
		if s.Err != nil {
			failed[s.Name] = vm.FailureOf(s.Err)
		}
	}
	r, err := table([]string{"id", "name", "status", "complete (%)"}, rows)
	if err == nil && len(failed) > 0 {
		r.Data = failed // the columns are fixed
	}
	return r, err
}
