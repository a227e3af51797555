package command

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/pkg/meshage"
	"minimega/pkg/minicli"
	"minimega/pkg/ranges"
)

// Mesh is this host's part in the mesh, as far as commands change or show it.
type Mesh interface {
	Status() meshage.Status
	Graph() map[string][]string
	Peers() []string
	SetDegree(degree int)
	Dial(ctx context.Context, address string) error
	Hangup(name string) error
}

// dialTime bounds how long `mesh dial` waits.
const dialTime = 10 * time.Second

// meshCommands is the family about the mesh itself.
func meshCommands(d *Deps) []Command {
	peers := map[string]Completer{"hostname": d.peers}
	return []Command{
		{Patterns: []string{"mesh degree [degree]"}, Short: "show or set how many peers this host looks for",
			Long: "A host with fewer links than its degree looks for others on the local network. 0 does not look; `auto` looks for as many as are good.",
			Run:  d.meshDegree},
		{Patterns: []string{"mesh dial <hostname>"}, Short: "connect to another host",
			Long: "Connects to a host by name or address, with :port if it is not the usual one, and says why if that fails. Its peers are found by themselves.",
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				ctx, cancel := context.WithTimeout(ctx, dialTime)
				defer cancel()
				return d.withMesh(func(m Mesh) error { return errs.Wrap(errs.Unreachable, m.Dial(ctx, c.Str("hostname"))) })
			}, Interruptible: true},
		{Patterns: []string{"mesh hangup <hostname>"}, Short: "disconnect from a peer",
			Long: "Ends the link with a peer. It stays in the mesh as long as others lead to it.", Suggest: peers,
			Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
				return d.withMesh(func(m Mesh) error { return errs.Wrap(errs.NotFound, m.Hangup(c.Str("hostname"))) })
			}},
		{Patterns: []string{"mesh dot <filename>"}, Short: "write the mesh as a graph",
			Long:    "Writes the hosts and their links in the language of graphviz. A file without a directory lies in the files directory.",
			Suggest: map[string]Completer{"filename": d.fileNames}, Run: d.meshDot},
		{Patterns: []string{"mesh list [all,peers]"}, Short: "show the hosts of the mesh",
			Long: "Shows each host with those it is linked to; with `all` the names of all other hosts, with `peers` of those this host is linked to.",
			Run:  d.meshList},
		{Patterns: []string{"mesh status"}, Short: "show the state of the mesh in numbers",
			Long: "How many hosts there are, how many this one looks for and is linked to, the context, and the port it listens on.", Run: d.meshStatus},
		{Patterns: []string{"mesh timeout [timeout]"}, Short: "show or set how long other hosts may take to answer",
			Long: "In seconds; 0 means any time. A host that is lost is noticed within seconds, whatever the time-out.", Run: d.meshTimeout},
		{Patterns: []string{"mesh send <hostname or range or all> (command)"}, Short: "run a command on other hosts",
			Long: "Runs a command on hosts by name or range, or on `all` other hosts of the mesh, there only. `namespace X mesh send …` runs it in namespace X;\n" +
				"otherwise it runs in the namespace that is active there. A host that does not answer is named.",
			Suggest: peers, Elsewhere: true, Interruptible: true, Stream: d.meshSend},
		{Patterns: []string{"log mesh [node]"}, Short: "send the log to another host",
			Long:    "Sends messages of level info and above to a host of the mesh, whose log they appear in with this host's name. Without an argument it says to which.",
			Suggest: map[string]Completer{"node": d.peers}, Run: d.logMesh},
	}
}

// withMesh does something with the mesh, if there is one.
func (d *Deps) withMesh(do func(Mesh) error) (*minicli.Response, error) {
	m := d.Mesh()
	if m == nil {
		return nil, errs.New(errs.State, "this daemon is in no mesh")
	}
	return done(do(m))
}

func (d *Deps) peers(_ *Call, prefix string) []string {
	return withPrefix(append(d.Cluster.Peers(), "all"), prefix)
}

func (d *Deps) meshDegree(_ context.Context, c *Call) (*minicli.Response, error) {
	m := d.Mesh()
	if m == nil {
		return d.withMesh(nil)
	}
	if !c.Has("degree") {
		return text(degreeText(m.Status().Degree))
	}
	degree, err := ParseDegree(c.Str("degree"))
	if err != nil {
		return nil, err
	}
	m.SetDegree(degree)
	return done(nil)
}

// ParseDegree reads a degree of the mesh: a number, or auto.
func ParseDegree(s string) (int, error) {
	if s == "auto" {
		return -1, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, errs.New(errs.Invalid, "%w (a number of peers, or auto)", err)
	}
	return int(n), nil
}

func degreeText(degree int) string {
	if degree < 0 {
		return "auto"
	}
	return strconv.Itoa(degree)
}

func (d *Deps) meshDot(_ context.Context, c *Call) (*minicli.Response, error) {
	return d.withMesh(func(m Mesh) error {
		return errs.Wrap(errs.Invalid, host.WriteFile(d.filesPath(c.Str("filename")), []byte(meshGraph(m.Graph())), 0o644))
	})
}

// meshGraph draws each link once.
func meshGraph(graph map[string][]string) string {
	var b strings.Builder
	b.WriteString("graph mesh {\n")
	for _, name := range slices.Sorted(maps.Keys(graph)) {
		fmt.Fprintf(&b, "%s;\n", dotQuote(name))
		for _, peer := range slices.Sorted(slices.Values(graph[name])) {
			if name < peer || !slices.Contains(graph[peer], name) {
				fmt.Fprintf(&b, "%s -- %s;\n", dotQuote(name), dotQuote(peer))
			}
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func (d *Deps) meshList(_ context.Context, c *Call) (*minicli.Response, error) {
	m := d.Mesh()
	names := d.Cluster.Peers()
	switch {
	case c.Chose("peers"):
		names = nil
		if m != nil {
			names = m.Peers()
		}
	case c.Chose("all"):
	default:
		return text(listText(m, d.Host))
	}
	if names == nil {
		names = []string{}
	}
	return &minicli.Response{Response: ranges.Compact(names), Data: names}, nil
}

func listText(m Mesh, self string) string {
	graph := map[string][]string{self: nil}
	if m != nil {
		graph = m.Graph()
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(graph)) {
		b.WriteString(name + "\n")
		for _, peer := range slices.Sorted(slices.Values(graph[name])) {
			b.WriteString(" |--" + peer + "\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (d *Deps) meshStatus(context.Context, *Call) (*minicli.Response, error) {
	s := meshage.Status{Size: 1}
	if m := d.Mesh(); m != nil {
		s = m.Status()
	}
	return table([]string{"size", "degree", "peers", "context", "port"},
		[][]string{{strconv.Itoa(s.Size), degreeText(s.Degree), strconv.Itoa(s.Peers), s.Context, strconv.Itoa(s.Port)}})
}

func (d *Deps) meshTimeout(_ context.Context, c *Call) (*minicli.Response, error) {
	if !c.Has("timeout") {
		if t := d.Cluster.Timeout(); t > 0 {
			return text(t.String())
		}
		return text("unlimited")
	}
	seconds, err := strconv.Atoi(c.Str("timeout"))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if seconds < 0 || seconds > 1<<30 {
		return nil, errs.New(errs.Invalid, "invalid timeout: `%d` (seconds, 0 for any time)", seconds)
	}
	d.Cluster.SetTimeout(time.Duration(seconds) * time.Second)
	return done(nil)
}

// notViaMesh lists what `mesh send` refuses, by the words a command starts with.
var notViaMesh = []string{"read", "mesh send", "vm launch", "ns run"}

func (d *Deps) meshSend(ctx context.Context, c *Call) error {
	for sub := c.Sub; sub != nil; sub = sub.Sub {
		if sub.Nop() {
			return c.Emit(Batch{Flags: c.Flags})
		}
		for _, words := range notViaMesh {
			if startsWith(sub.Pattern, words) {
				return errs.New(errs.Unsupported, "cannot run `%s` via meshage", sub.Original)
			}
		}
	}
	hosts, err := d.recipients(c.Str("hostname"))
	if err != nil {
		return err
	}
	return c.Emit(Batch{Resps: c.Runner.Send(ctx, c, hosts, c.Sub), Flags: c.Flags})
}

// recipients reads whom a command is sent to. Who is unknown answers with an
// error in its name.
func (d *Deps) recipients(spec string) ([]string, error) {
	names, err := ranges.Split(spec)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if slices.Contains(names, cluster.All) {
		if len(names) > 1 {
			return nil, errs.New(errs.Invalid, "wildcard included amongst list of recipients")
		}
		return d.Cluster.Peers(), nil
	}
	if slices.Contains(names, d.Host) {
		return nil, errs.New(errs.Invalid, "cannot mesh send yourself")
	}
	return names, nil
}

// logMesh sends the log to another host.
func (d *Deps) logMesh(_ context.Context, c *Call) (*minicli.Response, error) {
	node := c.Str("node")
	switch {
	case node == "" && d.Logs.Node() == "":
		return text("mesh logging disabled")
	case node == "":
		return text("sending all logs to node " + d.Logs.Node())
	case node == d.Host:
		return nil, errs.New(errs.Invalid, "cannot mesh log to yourself")
	case !d.Cluster.Has(node):
		return nil, errs.New(errs.NotFound, "node %s not in mesh", node)
	}
	return done(d.Logs.SendTo(node))
}
