package command

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"minimega/internal/namespace"
	"minimega/pkg/minicli"
)

// nsSave is the command that writes a whole namespace to files.
func nsSave(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"ns <save,> [name]", "ns <snapshot,> [name]"},
		Short:    "save all VMs of the namespace",
		Long: "Pauses all VMs and writes them to the directory `saved/NAME` of the files directory (or one named by an absolute path),\n" +
			"with a script `" + namespace.LaunchScript + "` that launches them again as they were: `read saved/NAME/" + namespace.LaunchScript + "`.\n" +
			"Returns when all is written; the directory appears then. Without a name, shows how many VMs of the last save are done.",
		Suggest: map[string]Completer{"name": d.fileNames},
		Run:     d.nsSave,
	}}
}

func (d *Deps) nsSave(ctx context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		if !c.Has("name") {
			p := ns.SaveProgress()
			return table([]string{"completed", "total"}, [][]string{{strconv.Itoa(p.Completed), strconv.Itoa(p.Total)}})
		}
		dir := c.Str("name")
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(d.Files, namespace.SavedDir, dir)
		}
		last := time.Now()
		return done(ns.SaveVMs(ctx, filepath.Clean(dir), func(p namespace.SaveProgress) {
			if every := c.Session.Shared.StatusPeriod(); every > 0 && time.Since(last) >= every {
				last = time.Now()
				c.Status(fmt.Sprintf("saved %d of %d VMs", p.Completed, p.Total))
			}
		}))
	})
}
