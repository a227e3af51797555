package command

import (
	"context"

	"minimega/internal/host"
	"minimega/pkg/minicli"
)

// host shows the facts, all or one.
func (m Machine) host() Command {
	keys := []string{
		"cpucommit", "cpus", "load", "memcommit", "memtotal", "memused", "name", "netcommit", "rx", "tx", "uptime", "vms",
		"vmlimit", "androidvms",
	}
	patterns := []string{"host"}
	for _, k := range keys {
		patterns = append(patterns, "host <"+k+",>")
	}
	return Command{
		Patterns: patterns,
		Short:    "show facts of the hosts",
		Long:     "Shows processors, load, memory (MiB), traffic (bytes per second), uptime, and what the VMs were promised of it (…commit); or one of these.",
		Scope:    FanOut,
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			f := m.Facts()
			for _, k := range keys {
				if c.Chose(k) {
					return text(f.Value(k))
				}
			}
			var row []string
			for _, col := range host.Columns() {
				row = append(row, f.Value(col))
			}
			return &minicli.Response{Header: host.Columns(), Tabular: [][]string{row}, Data: f}, nil
		},
	}
}
