package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// why is the family that explains VMs that do not run.
func why(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"vm why <vm name>"},
		Short:    "explain why a VM does not run",
		Long: "Says in which state a VM is and what that means, at which step it failed and with which words of the hypervisor, and looks at\n" +
			"its disks, memory and network: one thing a line, each with what to do about it. VMs that wait in the queue, and those that were\n" +
			"lost when minimega was killed while launching them, are explained too.",
		Scope: VMTarget, Suggest: map[string]Completer{"vm": d.vmNames}, Run: d.why,
	}}
}

func (d *Deps) why(ctx context.Context, c *Call) (*minicli.Response, error) {
	w, err := d.VMs.Why(ctx, c.Namespace, c.Str("vm"))
	if err != nil {
		if w = d.whyQueued(c); w == nil {
			return nil, err
		}
	}
	return &minicli.Response{Response: whyText(w), Data: w}, nil
}

// whyQueued explains a VM that waits to be launched.
func (d *Deps) whyQueued(c *Call) *vm.Why {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return nil
	}
	for _, g := range ns.Queue() {
		if slices.Contains(g.Names, c.Str("vm")) {
			return &vm.Why{Name: c.Str("vm"), Namespace: c.Namespace, Host: d.Host, ID: -1, Findings: []vm.Finding{
				{About: "placement", Text: "it waits in the queue of the namespace, to be placed on one of " + strings.Join(ns.Hosts(), ", "), Remedy: "`vm launch` launches what waits"}}}
		}
	}
	return nil
}

// whyText is what there is to say, the state first and what is wrong before
// what is not.
func whyText(w *vm.Why) string {
	var b strings.Builder
	if w.State != "" {
		fmt.Fprintf(&b, "%s is %s on %s\n", w.Name, w.State, w.Host)
	}
	if f := w.Failure; f != nil {
		b.WriteString("failure: " + f.Text + "\n")
		if f.Step != "" {
			b.WriteString("step: " + f.Step + "\n")
		}
	}
	if w.Words != "" {
		b.WriteString("last words: " + w.Words + "\n")
	}
	for _, good := range []bool{false, true} {
		for _, f := range w.Findings {
			if f.Good != good {
				continue
			}
			b.WriteString(f.About + ": " + f.Text)
			if f.Remedy != "" && !strings.Contains(f.Text, f.Remedy) {
				b.WriteString(" (" + f.Remedy + ")")
			}
			b.WriteString("\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
