package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"minimega/internal/namespace"
	"minimega/pkg/minicli"
	"minimega/pkg/ranges"
)

// plainPattern strips the marks of single-choice items from a pattern.
var plainPattern = strings.NewReplacer(",>", "", "<", "")

// schedule is the family about VMs that wait to be launched.
func schedule(d *Deps) []Command {
	in := func(do func(ctx context.Context, c *Call, ns *namespace.Namespace) (*minicli.Response, error)) func(context.Context, *Call) (*minicli.Response, error) {
		return func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return do(ctx, c, ns) })
		}
	}
	return []Command{
		{Patterns: []string{"ns <queue,>"}, Short: "show the VMs that wait to be launched",
			Long: "Prints each group of queued VMs with its configuration.",
			Run: in(func(_ context.Context, _ *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				return text(queueText(ns.Queue()))
			})},
		{Patterns: []string{"ns <flush,>"}, Short: "drop the VMs that wait to be launched",
			Long: "Empties the queue without launching anything, and forgets launches that were refused (`vm why`).",
			Run: in(func(_ context.Context, _ *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				ns.FlushQueue()
				return done(nil)
			})},
		{Patterns: []string{"ns <queueing,> [true,false]"}, Short: "show or set whether launches wait",
			Long: "While true, `vm launch` with a name or count only queues; a bare `vm launch` launches all that waits.",
			Run: in(func(_ context.Context, c *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				if len(c.Choices) == 0 {
					return text(strconv.FormatBool(ns.Queueing()))
				}
				ns.SetQueueing(c.Chose("true"))
				return done(nil)
			})},
		{Patterns: []string{"ns <schedule,>"}, Short: "launch the queued VMs",
			Long: "Does what a bare `vm launch` does.",
			Run: in(func(ctx context.Context, c *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				return done(ns.LaunchQueue(ctx, launchProgress(c)))
			})},
		{Patterns: []string{"ns <schedule,> <dry-run,>"}, Short: "show where queued VMs would be launched",
			Long: "Decides for each queued VM on which host it would be launched, and launches nothing. `ns schedule mv` changes the decision.",
			Run: in(func(ctx context.Context, c *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				warnings, err := ns.Plan(ctx)
				if err != nil {
					return nil, err
				}
				for _, w := range warnings {
					c.Status(w)
				}
				return placements(ns)
			})},
		{Patterns: []string{"ns <schedule,> <dump,>"}, Short: "show the decisions of the last dry run",
			Long: "Shows the same table as `ns schedule dry-run`, with moves made since.",
			Run: in(func(_ context.Context, _ *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				return placements(ns)
			})},
		{Patterns: []string{"ns <schedule,> <mv,> <vm target> <dst>"}, Short: "launch queued VMs on another host",
			Long: "Changes the decision of a dry run for some of the queued VMs.",
			Run: in(func(_ context.Context, c *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				return done(ns.Move(c.Str("vm"), c.Str("dst")))
			})},
		{Patterns: []string{"ns <schedule,> <status,>"}, Short: "show past and present launches",
			Long: "A row per pass over the queue, the latest 1000: when it ran, how many VMs were launched and how many failed.",
			Run: in(func(_ context.Context, _ *Call, ns *namespace.Namespace) (*minicli.Response, error) {
				return table([]string{"start", "end", "state", "launched", "failures", "total", "hosts"}, runRows(ns.Runs()))
			})},
	}
}

func queueText(groups []*namespace.Group) string {
	var b strings.Builder
	for _, g := range groups {
		var names []string
		for _, n := range g.Names {
			if n != "" {
				names = append(names, n)
			}
		}
		fmt.Fprintf(&b, "VMs: %d\nNames: %s\nVM Type: %s\n\n%s\n", len(g.Names), ranges.Compact(names), g.Type, g.Config.Text())
	}
	return b.String()
}

func placements(ns *namespace.Namespace) (*minicli.Response, error) {
	ps, err := ns.Placements()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, p := range ps {
		rows = append(rows, []string{p.Name, p.Host})
	}
	return table([]string{"vm", "dst"}, rows)
}

func runRows(runs []namespace.Run) [][]string {
	var rows [][]string
	for _, r := range runs {
		end, state := r.End.Format(time.RFC822), "completed"
		if r.End.IsZero() {
			end, state = "", "running"
		}
		rows = append(rows, []string{r.Start.Format(time.RFC822), end, state,
			strconv.Itoa(r.Launched), strconv.Itoa(r.Failed), strconv.Itoa(r.Total), strconv.Itoa(r.Hosts)})
	}
	return rows
}
