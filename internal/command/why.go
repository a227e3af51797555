package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

// why is the family that explains VMs that do not run.
func why(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"vm why [vm name]"},
		Short:    "explain why a VM does not run",
		Long: "Says in which state a VM is and what that means, at which step it failed and with which words of the hypervisor, and looks at\n" +
			"its disks, memory and network: one thing a line, each with what to do about it. Of a VM that waits in the queue, also one that\n" +
			"gets its name only when it is launched, it says where it would be launched now, or which host and limit refuses it. VMs whose\n" +
			"launch was refused are explained as long as minimega remembers them, which are the last 128 refusals of a namespace, and so are\n" +
			"those that were lost when minimega was killed while launching them. Without a name, lists all that do not run, a line each.",
		Suggest: map[string]Completer{"vm": d.whyNames}, Stream: d.why,
	}}
}

// why answers with a response for each VM that has the name, or for each host.
func (d *Deps) why(ctx context.Context, c *Call) error {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return err
	}
	name := c.Str("vm")
	answers, err := ns.Why(ctx, name, c.Remote)
	var all minicli.Responses
	if err != nil {
		all = append(all, &minicli.Response{Host: d.Host, Error: err.Error(), Data: errs.FactsOf(err)})
	}
	for _, a := range answers {
		if a.Err != nil {
			all = append(all, &minicli.Response{Host: a.Host, Error: a.Err.Error(), Data: errs.FactsOf(a.Err)})
			continue
		}
		if name == "" {
			all = append(all, &minicli.Response{Host: a.Host, Response: whyLines(a.VMs), Data: list(a.VMs)})
			continue
		}
		for _, w := range a.VMs {
			all = append(all, &minicli.Response{Host: a.Host, Response: whyText(&w), Data: w})
		}
	}
	return c.Emit(Batch{Resps: all, Flags: c.Flags})
}

// list is a list that is there for programs when it is empty, too.
func list(whys []vm.Why) []vm.Why { return append([]vm.Why{}, whys...) }

// whyHead says what an explanation is about.
func whyHead(w *vm.Why) string {
	name := w.Name
	switch {
	case name == "":
		name = fmt.Sprintf("VMs without a name (%d)", w.VMs)
	case w.VMs > 1:
		name += fmt.Sprintf(" (%d VMs)", w.VMs)
	}
	switch {
	case w.State != "":
		return name + " is " + w.State + " on " + w.Host
	case w.Failure != nil:
		return name + ": not launched on " + w.Host + " (" + w.When.Format(time.DateTime) + ")"
	}
	return name + " is not there any more on " + w.Host
}

// whyLines is a line for each VM: what it is, and what is wrong.
func whyLines(whys []vm.Why) string {
	var lines []string
	for _, w := range whys {
		var wrong []string
		if w.Failure != nil && w.State != namespace.Queued { // why that waits, now, is among the findings
			wrong = append(wrong, w.Failure.Text)
		}
		for _, f := range w.Findings {
			if f.About != namespace.Queue && (!f.Good || w.State == namespace.Queued && f.About == "placement") {
				wrong = append(wrong, findingText(f))
			}
		}
		lines = append(lines, whyHead(&w)+": "+strings.Join(wrong, "; "))
	}
	return strings.Join(lines, "\n")
}

// whyText is what there is to say, the state first and what is wrong before
// what is not.
func whyText(w *vm.Why) string {
	var b strings.Builder
	b.WriteString(whyHead(w) + "\n")
	if f := w.Failure; f != nil {
		when := ""
		if w.State == namespace.Queued {
			when = " of the last launch (" + w.When.Format(time.DateTime) + ")"
		}
		b.WriteString("failure" + when + ": " + f.Text + "\n")
		if f.Step != "" {
			b.WriteString("step: " + f.Step + "\n")
		}
	}
	if w.Words != "" {
		b.WriteString("last words: " + w.Words + "\n")
	}
	for _, good := range []bool{false, true} {
		for _, f := range w.Findings {
			if f.Good == good {
				b.WriteString(findingText(f) + "\n")
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func findingText(f vm.Finding) string {
	text := f.About + ": " + f.Text
	if f.Remedy != "" && !strings.Contains(f.Text, f.Remedy) {
		text += " (" + f.Remedy + ")"
	}
	return text
}
