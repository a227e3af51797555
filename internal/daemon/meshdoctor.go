package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/network"
)

// meshChecks are what `check` looks at in a mesh.
func (d *Daemon) meshChecks(net *network.Manager) []host.Check {
	return []host.Check{
		{Name: "mesh names", Optional: true, Run: func(context.Context) error { return d.twins() }},
		{Name: "mesh access", Optional: true, Run: func(context.Context) error { return d.openMesh() }},
		{Name: "overlay", Optional: true, Run: func(context.Context) error { return faults(net.Overlays()) }},
	}
}

// twins tells of hosts that have one name.
func (d *Daemon) twins() error {
	if d.mesh.node == nil {
		return nil
	}
	at := map[string][]string{}
	for _, m := range d.mesh.node.Members() {
		at[m.Name] = append(at[m.Name], m.Address)
	}
	var lines []string
	for name, addresses := range at {
		if len(addresses) > 1 {
			slices.Sort(addresses)
			lines = append(lines, fmt.Sprintf("%s (%s)", name, strings.Join(addresses, ", ")))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return errs.WithRemedy(errs.New(errs.State, "several hosts of the mesh have one name, and commands for it are refused: %s", strings.Join(lines, "; ")),
		"give one of them another host name and start its minimega again")
}

// openMesh tells that everybody is let in.
func (d *Daemon) openMesh() error {
	if !d.cfg.Mesh.Open {
		return nil
	}
	return errs.WithRemedy(errs.New(errs.State, "the mesh is open: whoever reaches port %d commands this host", d.mesh.node.Status().Port),
		"start with -mesh-key instead of -mesh-open")
}

// faults tells of VLANs that are not joined with those of other hosts.
func faults(overlays []network.OverlayInfo) error {
	var lines []string
	for _, o := range overlays {
		why := o.Off
		if o.Err != nil {
			why = o.Err.Error()
		}
		if why != "" {
			lines = append(lines, fmt.Sprintf("VLAN %d of bridge %s: %s", o.VLAN, o.Bridge, why))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errs.New(errs.State, "VLANs are not joined with those of other hosts: %s", strings.Join(lines, "; "))
}
