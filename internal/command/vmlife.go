package command

import (
	"context"
	"fmt"
	"time"

	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

const targetHelp = "A target is a comma list of names, IDs and ranges like `web[1-3,7]`, or `all`."

// vmLife is the family that makes VMs, runs them and ends them.
func vmLife(d *Deps) []Command {
	cmds := []Command{{
		Patterns: []string{"vm launch"},
		Short:    "launch the queued VMs",
		Long:     "Launches what waits in the namespace's queue (see `ns queueing`) and returns when every VM is made or has failed.",
		Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
				return done(ns.LaunchQueue(ctx, launchProgress(c)))
			})
		},
	}}
	for _, t := range d.VMs.Types() {
		cmds = append(cmds, d.launch(t))
	}
	verbs := []struct {
		name, short, long string
		do                func(ctx context.Context, namespace, target string) error
	}{
		{"kill", "end VMs", "Ends running, paused and not yet started VMs and returns when their processes are gone. They stay listed as QUIT until `vm flush`.", d.VMs.Kill},
		{"start", "start VMs", "Starts VMs that are built or paused. A VM that is named and has quit or failed is launched again; `all` leaves those alone.", d.VMs.Start},
		{"stop", "pause VMs", "Pauses running VMs. `vm start` lets them run on.", d.VMs.Stop},
		{"flush", "forget VMs that ended", "Removes VMs in state QUIT or ERROR with their taps and files. `all`, or no target, also forgets launches that were refused (`vm why`).", d.flush},
	}
	for _, v := range verbs {
		patterns := []string{"vm <" + v.name + ",> <vm target>"}
		if v.name == "flush" {
			patterns = []string{"vm <flush,>", "vm <flush,> <vm target>"}
		}
		cmds = append(cmds, Command{
			Patterns: patterns, Short: v.short, Long: v.long + "\n" + targetHelp, Scope: VMTarget,
			Suggest: map[string]Completer{"vm": d.vmTargets},
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				target := c.Str("vm")
				if !c.Has("vm") {
					target = "all"
				}
				return done(v.do(ctx, c.Namespace, target))
			},
		})
	}
	return cmds
}

func (d *Deps) flush(ctx context.Context, ns, target string) error {
	if target == "all" {
		d.NS.ForgetRefused(ns)
	}
	return d.VMs.Flush(ctx, ns, target)
}

func (d *Deps) launch(t vm.Type) Command {
	return Command{
		Patterns: []string{fmt.Sprintf("vm launch <%s,> <name or count> [config]", t)},
		Short:    fmt.Sprintf("launch %s VMs by name or count", t),
		Long: "Launches VMs with the present configuration, or a stored one. A number launches that many unnamed ones;\n" +
			"otherwise the argument is a name or a range like `web[1-20]`. VMs are made paused: `vm start` runs them.\n" +
			"Returns when every VM is made; what failed is named with its step and the hypervisor's own words.\n" +
			"With `ns queueing true` they only queue until a bare `vm launch`.",
		Suggest: map[string]Completer{"config": d.savedConfigs},
		Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
				return done(ns.Launch(ctx, t, c.Str("name"), c.Str("config"), launchProgress(c)))
			})
		},
	}
}

// launchProgress tells the client how far a long launch has come.
func launchProgress(c *Call) func(done, failed, total int) {
	every := c.Session.Shared.StatusPeriod()
	last := time.Now()
	return func(done, failed, total int) {
		if every == 0 || done == total || time.Since(last) < every {
			return
		}
		last = time.Now()
		c.Status(fmt.Sprintf("launched %d of %d VMs, %d failed", done-failed, total, failed))
	}
}
