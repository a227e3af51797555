package command

import (
	"context"
	"slices"

	"minimega/internal/capture"
	"minimega/internal/errs"
	"minimega/internal/record"
	"minimega/internal/vm"
)

// Adopted takes up, once VMs and network have been taken over, what an earlier
// daemon was doing with them: captures and recordings go on. It makes the
// namespaces known in which there is something.
func (d *Deps) Adopted(ctx context.Context) {
	links := func(bridge string) capture.LinkSource { return bridgeLinks{d, bridge} }
	captures, err := d.Captures.Restore(ctx, links)
	if err != nil {
		d.Log.Warn("captures of an earlier minimega have ended", "err", err)
	}
	records, err := d.Records.Restore(ctx, d.adoptedScreen)
	if err != nil {
		d.Log.Warn("recordings of an earlier minimega have ended", "err", err)
	}
	if captures+records > 0 {
		d.Log.Info("took up what an earlier minimega was recording", "captures", captures, "screens", records)
	}
	d.adoptNamespaces()
}

// Forgotten drops what an earlier daemon was recording, whose files stay, and
// its stored configurations. It returns a line for each.
func (d *Deps) Forgotten(context.Context) ([]string, error) {
	captures, bad := d.Captures.Forget()
	records, worse := d.Records.Forget()
	stored, worst := d.NS.Discard()
	return slices.Concat(captures, records, stored), errs.Join(bad, worse, worst)
}

func (d *Deps) adoptedScreen(id int) (record.Target, error) {
	for _, v := range d.VMs.List("") {
		if v.ID == id {
			return screen(v, vm.Building|vm.Running|vm.Paused, "record")
		}
	}
	return record.Target{}, errs.New(errs.NotFound, "its VM has gone")
}

func (d *Deps) adoptNamespaces() {
	if err := d.NS.Adopt(); err != nil {
		d.Log.Warn("stored configurations of an earlier minimega could not all be taken over", "err", err)
	}
	names := map[string]bool{}
	for _, v := range d.VMs.List("") {
		names[v.Namespace] = true
	}
	for _, p := range d.Net.Ports() {
		names[p.Namespace] = true
	}
	for _, c := range d.Captures.List() {
		names[c.Namespace] = true
	}
	for name := range names {
		if _, err := d.NS.Get(name); err != nil {
			d.Log.Warn("a namespace of an earlier minimega cannot be made again", "namespace", name, "err", err)
		}
	}
}
