package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/namespace"
	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

func viz(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"viz <filename>"},
		Short:    "draw the namespace for graphviz",
		Long: "Writes a graph of the VMs of the namespace and the VLANs that connect them, in the language of graphviz:\n" +
			"`viz lab.dot`, then `dot -Tsvg lab.dot`. A file without a directory lies in the files directory.",
		Suggest: map[string]Completer{"filename": d.fileNames},
		Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
			return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
				infos, lost := ns.Infos(ctx)
				if err := host.WriteFile(d.filesPath(c.Str("filename")), []byte(graph(infos)), 0o644); err != nil {
					return nil, errs.New(errs.Invalid, "cannot write the graph: %w", err)
				}
				return done(lost)
			})
		},
	}}
}

// fills are the colours of states.
var fills = map[vm.State]string{vm.Building: "yellow", vm.Paused: "yellow", vm.Running: "green", vm.Quit: "blue", vm.Error: "red"}

// graph draws VMs as nodes with an edge to the VLAN of each interface.
func graph(infos []vm.Info) string {
	var b strings.Builder
	b.WriteString("graph minimega {\nsize=\"8,11\";\noverlap=false;\n")
	for i := range infos {
		in := &infos[i]
		var ip, ip6 []string
		for _, n := range in.Networks {
			ip, ip6 = append(ip, n.IP4), append(ip6, n.IP6)
		}
		node := dotQuote(fmt.Sprintf("%s:%s:%d:[%s]:[%s]", in.Host, in.Name, in.ID, strings.Join(ip, ", "), strings.Join(ip6, ", ")))
		fmt.Fprintf(&b, "%s [style=filled, fillcolor=%s];\n", node, fills[in.State])
		for _, n := range in.Networks {
			if n.VLAN != vm.Disconnected {
				fmt.Fprintf(&b, "%s -- %s;\n", node, strconv.Itoa(n.VLAN))
			}
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// dotQuote writes a graphviz ID (https://graphviz.org/doc/info/lang.html).
func dotQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
