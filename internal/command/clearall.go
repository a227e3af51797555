package command

import (
	"context"

	"minimega/pkg/minicli"
)

// clearAll is the command that puts the daemon back to where it started.
func clearAll(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"clear all"},
		Short:    "end everything in every namespace",
		Long:     "Forgets the flags of `deploy flags`, and clears all namespaces (with their VMs, captures, recordings and taps), all VLAN aliases and the history.",
		Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
			d.Deploy.ClearFlags()
			if err := d.clear(ctx, c, "all"); err != nil {
				return nil, err
			}
			c.Session.SetNamespace("minimega")
			d.VLANs.Clear("", "all")
			c.Session.Shared.ClearHistory()
			return done(nil)
		},
	}}
}
