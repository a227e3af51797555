package command

import (
	"context"
)

// Adopted makes the namespaces known in which an earlier daemon left
// something.
func (d *Deps) Adopted(context.Context) error {
	names := map[string]bool{}
	for _, v := range d.VMs.List("") {
		names[v.Namespace] = true
	}
	for _, p := range d.Net.Ports() {
		names[p.Namespace] = true
	}
	for name := range names {
		if _, err := d.NS.Get(name); err != nil {
			d.Log.Warn("a namespace of an earlier minimega cannot be made again", "namespace", name, "err", err)
		}
	}
	return nil
}
