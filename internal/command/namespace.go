package command

import (
	"context"
	"fmt"
	"strconv"

	"minimega/internal/errs"
	"minimega/internal/namespace"
	"minimega/internal/scheduler"
	"minimega/pkg/minicli"
	"minimega/pkg/ranges"
)

// namespaces is the family that makes, enters and clears namespaces, and says
// which hosts they have.
func namespaces(d *Deps) []Command {
	names := map[string]Completer{"name": d.namespaces}
	return []Command{
		{
			Patterns: []string{"namespace [name]"},
			Short:    "show namespaces, or enter one",
			Long: "Each namespace is an experiment of its own: its VMs, VLAN aliases and settings are apart from all others.\n" +
				"With a name, makes the namespace if needed and enters it. Without, lists the namespaces.",
			Suggest: names, Run: d.namespace,
		},
		{
			Patterns: []string{"namespace <name> (command)"},
			Short:    "run one command in a namespace",
			Long:     "Makes the namespace if needed and runs the command in it; the active namespace stays as it is.",
			Suggest:  names, Stream: d.inNamespace,
		},
		{
			Patterns: []string{"clear namespace [name]"},
			Short:    "leave the namespace, or end one with all that runs in it",
			Long: "Without a name, goes back to the default namespace. With one, kills and flushes its VMs, stops its captures,\n" +
				"recordings and taps, and frees its VLANs; `all` does so for every namespace. A host of the namespace that is away is\n" +
				"named, each time until it has been told: repeat the command when it is back, or take it out with `ns del-hosts`.",
			Suggest: names, Run: d.clearNamespace,
		},
		{
			Patterns: []string{"ns <hosts,>"},
			Short:    "show the hosts of the namespace",
			Long:     "Prints the hosts on which the namespace may launch VMs.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return text(ranges.Compact(ns.Hosts())) })
			},
		},
		{
			Patterns: []string{"ns <add-hosts,> <hostname or range or all>"},
			Short:    "add hosts to the namespace",
			Long:     "Adds hosts by name or range; `localhost` means this host, `all` every peer.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return done(ns.AddHosts(c.Str("hostname"))) })
			},
		},
		{
			Patterns: []string{"ns <del-hosts,> <hostname or range or all>"},
			Short:    "remove hosts from the namespace",
			Long:     "Removes hosts by name or range, or `all`. VMs that run there are left alone.",
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) { return done(ns.DelHosts(c.Str("hostname"))) })
			},
		},
		{
			Patterns: []string{"ns <load,>", "ns <load,> <cpucommit,>", "ns <load,> <netcommit,>", "ns <load,> <memcommit,>"},
			Short:    "show or set how the load of a host is measured",
			Long:     "The scheduler puts VMs on the host with the least load: committed CPUs (cpucommit), interfaces (netcommit) or memory (memcommit).",
			Run:      d.nsLoad,
		},
		{
			Patterns: []string{"ns <limit,>", "ns <limit,> <cpu,memory,vms> <most or none>"},
			Short:    "show or set how much a host of the namespace may be promised",
			Long: "A launch that would exceed a limit on every host is refused, and the error says what would fit. For cpu and memory\n" +
				"the limit is a ratio of what VMs are promised to what the host has, such as 1.5; for vms a number of VMs on a host.\n" +
				"By default there is none: memory beyond what hosts have is used last, and CPUs are shared.",
			Run: d.nsLimit,
		},
		{
			Patterns: []string{"ns <run,> (command)"},
			Short:    "run a command on every host of the namespace",
			Long:     "Runs a command on all hosts of the namespace, also one that would otherwise act on this host only.",
			Stream:   d.nsRun,
		},
		{
			Patterns: []string{"ns <bridge,> <bridge> [vxlan,gre]"},
			Short:    "connect a bridge over all hosts of the namespace",
			Long:     "Connects the bridges of this name on all hosts by tunnels. With one host there is nothing to connect.",
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
					return done(ns.AddBridge(ctx, c.Str("bridge"), tunnelKind(c)))
				})
			},
		},
		{
			Patterns: []string{"ns <del-bridge,> <bridge>"},
			Short:    "undo `ns bridge`",
			Long:     "Removes the tunnels that `ns bridge` made for this bridge.",
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
					return done(ns.DelBridge(ctx, c.Str("bridge")))
				})
			},
		},
	}
}

func (d *Deps) namespace(_ context.Context, c *Call) (*minicli.Response, error) {
	if name := c.Str("name"); name != "" {
		if _, err := d.NS.Get(name); err != nil {
			return nil, err
		}
		c.Session.SetNamespace(name)
		return done(nil)
	}
	var rows [][]string
	for _, name := range d.NS.Names() {
		vlans := ""
		if r := d.VLANs.Range(name); r.Own || name == namespace.Default {
			vlans = fmt.Sprintf("%d-%d", r.Min, r.Max)
		}
		rows = append(rows, []string{name, vlans, strconv.FormatBool(name == c.Session.Namespace())})
	}
	return table([]string{"namespace", "vlans", "active"}, rows)
}

func (d *Deps) inNamespace(ctx context.Context, c *Call) error {
	if _, err := d.NS.Get(c.Str("name")); err != nil {
		return err
	}
	sub := c.With(c.Sub)
	sub.Namespace, sub.Tagged = c.Str("name"), true
	return c.Runner.Run(ctx, sub, c.Sub)
}

func (d *Deps) clearNamespace(ctx context.Context, c *Call) (*minicli.Response, error) {
	name := c.Str("name")
	if name == "" {
		c.Session.SetNamespace(namespace.Default)
		return done(nil)
	}
	err := d.clear(ctx, c, name)
	if a := c.Session.Namespace(); a == name || name == "all" {
		c.Session.SetNamespace(namespace.Default)
	}
	return done(err)
}

// clear ends a namespace on all hosts, or on this one if another asks for it.
func (d *Deps) clear(ctx context.Context, c *Call, name string) error {
	if c.Remote {
		return d.NS.Clear(ctx, name)
	}
	return d.NS.ClearEverywhere(ctx, name)
}

func (d *Deps) nsLoad(_ context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		for _, metric := range []scheduler.Metric{scheduler.CPUCommit, scheduler.NetCommit, scheduler.MemCommit} {
			if c.Chose(string(metric)) {
				ns.SetLoad(metric)
				return done(nil)
			}
		}
		return text(string(ns.Load()))
	})
}

func (d *Deps) nsLimit(_ context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		for _, what := range scheduler.LimitNames() {
			if c.Chose(what) {
				return done(ns.SetLimit(what, c.Str("most")))
			}
		}
		var row []string
		for _, what := range scheduler.LimitNames() {
			row = append(row, ns.Limits().Value(what))
		}
		return table(scheduler.LimitNames(), [][]string{row})
	})
}

func tunnelKind(c *Call) string {
	if c.Chose("vxlan") {
		return "vxlan"
	}
	return "gre"
}

// notOnAllHosts lists what `ns run` refuses, by the words a command starts with.
var notOnAllHosts = []string{"read", "mesh send", "ns run", "vm launch"}

func (d *Deps) nsRun(ctx context.Context, c *Call) error {
	if c.Sub.Nop() {
		return nil
	}
	for _, words := range notOnAllHosts {
		if startsWith(c.Sub.Pattern, words) {
			return errs.New(errs.Unsupported, "cannot run `%s` using `ns run`", c.Sub.Original)
		}
	}
	sub := c.With(c.Sub)
	sub.Everywhere = true
	return c.Runner.Run(ctx, sub, c.Sub)
}

// startsWith reports whether a pattern begins with words, a single-choice
// item counting as its word.
func startsWith(pattern, words string) bool {
	plain := plainPattern.Replace(pattern)
	return plain == words || len(plain) > len(words) && plain[:len(words)+1] == words+" "
}
