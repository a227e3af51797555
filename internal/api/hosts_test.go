package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minimega/internal/cluster"
	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/pkg/meshage/meshtest"
	"minimega/pkg/minicli"
)

// machine is one of several hosts: its router, and the VMs it has.
type machine struct {
	*Router
	vms     map[string]bool
	started chan string
	ended   chan error
	log     *fakes // holds what the router logs
}

// inMesh makes hosts of these names. Hosts of a namespace are those that its
// name lists.
func inMesh(t *testing.T, names ...string) (map[string]*machine, *meshtest.Hub) {
	t.Helper()
	hub := meshtest.NewHub()
	t.Cleanup(hub.Close)
	machines := map[string]*machine{}
	for _, name := range names {
		m := &machine{vms: map[string]bool{}, started: make(chan string, 8), ended: make(chan error, 8), log: newFakes()}
		var handlers []*minicli.Handler
		for _, c := range m.commands(name) {
			handlers = append(handlers, &minicli.Handler{Patterns: c.Patterns, Meta: &c})
		}
		cli, err := minicli.New(handlers...)
		if err != nil {
			t.Fatal(err)
		}
		c := cluster.New(name)
		m.Router = NewRouter(cli, Options{Host: name, Shared: command.NewShared("minimega"), Cluster: c,
			Preprocess: func(ctx context.Context, arg string) (string, error) {
				if !command.IsEnvExpanded(ctx) {
					arg = command.ExpandEnv(arg)
				}
				return strings.Replace(arg, "file:", "/"+name+"/", 1), nil
			},
			Hosts: func(ns string) []string { return strings.Split(ns, ".") },
			Log:   slog.New(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		c.Join(hub.Join(name))
		machines[name] = m
	}
	return machines, hub
}

func (m *machine) commands(host string) []command.Command {
	say := func(format string, args ...any) (*minicli.Response, error) {
		return &minicli.Response{Response: fmt.Sprintf(format, args...)}, nil
	}
	return []command.Command{
		{Patterns: []string{"echo [args]..."}, Run: func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			return say("%s %q", c.Namespace, c.List("args"))
		}},
		{Patterns: []string{"login <user> <password>"}, Secret: []string{"password"}, Run: func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			return say("%s", c.Str("password"))
		}},
		{Patterns: []string{"all [args]..."}, Scope: command.FanOut, Run: func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			return say("%s %q", c.Namespace, c.List("args"))
		}},
		{Patterns: []string{"rows"}, Scope: command.FanOut, Run: func(context.Context, *command.Call) (*minicli.Response, error) {
			return &minicli.Response{Header: []string{"id"}, Tabular: [][]string{{host}, {"x"}}}, nil
		}},
		{Patterns: []string{"vm start <vm target>"}, Scope: command.VMTarget, Run: func(_ context.Context, c *command.Call) (*minicli.Response, error) {
			switch vm := c.Str("vm"); {
			case vm == "broken" && m.vms[vm]:
				return nil, errs.InVM(errs.New(errs.State, "no luck"), vm)
			case !m.vms[vm]:
				return nil, errs.New(errs.NotFound, "vm not found: %s", vm)
			}
			return &minicli.Response{}, nil
		}},
		{Patterns: []string{"wait"}, Scope: command.FanOut, Interruptible: true, Run: func(ctx context.Context, c *command.Call) (*minicli.Response, error) {
			if host == "a" {
				return say("quick")
			}
			c.Status("waits")
			m.started <- host
			<-ctx.Done()
			m.ended <- context.Cause(ctx)
			return nil, context.Cause(ctx)
		}},
		{Patterns: []string{"namespace <name> (command)"}, Stream: func(ctx context.Context, c *command.Call) error {
			sub := c.With(c.Sub)
			sub.Namespace, sub.Tagged = c.Str("name"), true
			return c.Runner.Run(ctx, sub, c.Sub)
		}},
		{Patterns: []string{"ns run (command)"}, Stream: func(ctx context.Context, c *command.Call) error {
			sub := c.With(c.Sub)
			sub.Everywhere = true
			return c.Runner.Run(ctx, sub, c.Sub)
		}},
		{Patterns: []string{"mesh send <host> (command)"}, Elsewhere: true, Stream: func(ctx context.Context, c *command.Call) error {
			return c.Emit(command.Batch{Resps: c.Runner.Send(ctx, c, strings.Split(c.Str("host"), ","), c.Sub), Flags: c.Flags})
		}},
	}
}

func TestHosts(t *testing.T) {
	t.Setenv("MM_HERE", "from a")
	machines, _ := inMesh(t, "a", "b", "c")
	machines["b"].vms["vm1"] = true
	machines["c"].vms["broken"] = true
	tests := []struct {
		line string
		want []string
	}{
		{"namespace a.b.c all x", []string{`a: a.b.c ["x"]`, `b: a.b.c ["x"]`, `c: a.b.c ["x"]`}},
		{"namespace b.c all x", []string{`b: b.c ["x"]`, `c: b.c ["x"]`}},
		{"namespace a all x", []string{`a: a ["x"]`}},
		{"namespace a.b.c echo x", []string{`a: a.b.c ["x"]`}},
		{"namespace a.b ns run echo x", []string{`a: a.b ["x"]`, `b: a.b ["x"]`}},
		{"namespace b ns run namespace c all x", []string{`b: c ["x"]`}},
		{`namespace a.b all $MM_HERE "" "#" file:y`, []string{`a: a.b ["from a" "" "#" "/a/y"]`, `b: a.b ["from a" "" "#" "/b/y"]`}},
		{"namespace a.b.c vm start vm1", []string{"b: "}},
		{"namespace a.b.c vm start vm2", []string{"a: !vm not found: vm2"}},
		{"namespace b.c vm start vm2", []string{"a: !vm not found: vm2"}},
		{"namespace a.b.c vm start broken", []string{"c: !VM broken: no luck"}},
		{"namespace a.x vm start vm2", []string{"a: !vm not found: vm2", "x: !the host is not in the mesh (`mesh list` shows who is; `ns del-hosts` takes it out of a namespace)"}},
		{"namespace a.x all y", []string{`a: a.x ["y"]`, "x: !the host is not in the mesh (`mesh list` shows who is; `ns del-hosts` takes it out of a namespace)"}},
		{"mesh send b,c echo file:z", []string{`b: minimega ["/b/z"]`, `c: minimega ["/c/z"]`}},
		{"namespace foo mesh send b all x", []string{`b: foo ["x"]`}},
		{"namespace a mesh send b namespace c all x", []string{`b: c ["x"]`}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, typed(t, machines["a"].Router, test.line)); diff != "" {
			t.Errorf("%s: %s", test.line, diff)
		}
	}
	if h := machines["b"].opts.Shared.History(); strings.Join(h, ";") != "echo file:z;all x;namespace c all x" {
		t.Errorf("history of b: %q", h)
	}
}

// A secret arrives on another host, which neither logs nor remembers it.
func TestSecretElsewhere(t *testing.T) {
	machines, _ := inMesh(t, "a", "b")
	for line, host := range map[string]string{
		"mesh send b login me passw0rd":                   "b",
		"mesh send b namespace x login me passw0rd":       "b",
		"namespace a.b ns run login me passw0rd":          "a", // answers first
		"namespace b ns run namespace b login m passw0rd": "b",
	} {
		if got := typed(t, machines["a"].Router, line); len(got) == 0 || got[0] != host+": passw0rd" {
			t.Errorf("%s: %q", line, got)
		}
	}
	for name, m := range machines {
		records := m.log.logged() + strings.Join(m.opts.Shared.History(), "\n")
		if strings.Contains(records, "w0rd") || !strings.Contains(records, "login me ****") {
			t.Errorf("%s keeps: %s", name, records)
		}
	}
}

// A host that dies while a command runs is named, and the others' answers are there.
func TestHostDiesInTheMiddle(t *testing.T) {
	machines, hub := inMesh(t, "a", "b")
	go func() {
		<-machines["b"].started
		hub.Kill("b")
	}()
	got := typed(t, machines["a"].Router, "namespace a.b wait")
	if len(got) != 2 || got[0] != "a: quick" || !strings.HasPrefix(got[1], "b: !the host ") {
		t.Errorf("%q", got)
	}
}

// A client that goes away ends what waits, also on other hosts.
func TestClientGoneEndsOtherHosts(t *testing.T) {
	machines, _ := inMesh(t, "a", "b")
	ctx, gone := context.WithCancelCause(t.Context())
	_ = machines["a"].RunLine(ctx, machines["a"].NewSession(), "namespace b wait", func(b command.Batch) error {
		if b.Status == "b: waits" {
			gone(ErrClientGone)
		}
		return nil
	})
	if err := <-machines["b"].ended; !errors.Is(err, ErrClientGone) {
		t.Errorf("%v", err)
	}
}

func TestTablesOfHosts(t *testing.T) {
	machines, _ := inMesh(t, "a", "b")
	var got minicli.Responses
	_ = machines["b"].RunLine(t.Context(), machines["b"].NewSession(), "namespace a.b rows", func(b command.Batch) error {
		got = append(got, b.Resps...)
		return nil
	})
	want := "host | id\na    | a\na    | x\nb    | b\nb    | x"
	if text := got.Render(minicli.DefaultFlags()); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
