package minicli

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCompile(t *testing.T) {
	c := language(t)
	for _, tt := range []struct{ line, pattern string }{
		{"version", "version"},
		{"vm config net", "vm config networks [netspec]..."},
		{"vm config net my_network", "vm config networks [netspec]..."},
		{"vm config mem 2048", "vm config memory [value]"},
		{"vm config memory 2048", "vm config memory [value]"},
		{"vm config di", "vm config disks [diskspec]..."},
		{"vm config disk foo.qc2", "vm config disks [diskspec]..."},
		{"vm config bond", "vm config bonds [bondspec]..."},
		{"vm config migrate", "vm config migrate [value]"},
		{"vm config qemu x", "vm config qemu [value]"},
		{"vm config", "vm config"},
		{"cc client", "cc <clients,>"},
		{"cc response 3 raw", "cc <responses,> <id or prefix or all> [raw,]"},
		{"cc exec ls", "cc <exec,> <command>..."},
		{"ns del-host all", "ns <del-hosts,> <hostname or range or all>"},
		{"ns add-host localhost", "ns <add-hosts,> <hostname or range or all>"},
		{"vm launch kvm 5", "vm launch <kvm,> <name or count> [config]"},
		{"vm info", "vm info [summary,]"},
		{"vm info summary", "vm info [summary,]"},
		{"Vnc record fb foo x", "vnc <record,> <kb,fb> <vm name> <filename>"},
		{"VNC RECORD FB foo x", "vnc <record,> <kb,fb> <vm name> <filename>"},
		{"VM Config NET a b", "vm config networks [netspec]..."},
		{"vm kill all", "vm <kill,> <vm target>"},
		{"vm flush", "vm <flush,>"},
		{"capture pcap vm foo 0 foo.pcap", "capture <pcap,> vm <vm name> <interface index> <filename>"},
		{"capture pcap delete vm foo", "capture <pcap,> <delete,> vm <vm name>"},
		{".json", ".json [true,false]"},
		{".json t", ".json [true,false]"},
		{".json true vm info", ".json <true,false> (command)"},
		{".columns name,id .filter name=x vm info", ".columns <columns as csv> (command)"},
		{"namespace foo vm info", "namespace <name> (command)"},
		{"namespace foo", "namespace [name]"},
		{"mesh send all vm info", "mesh send <hostname or range or all> (command)"},
		{"vm net bond foo 0,1 active-backup active", "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive,off> [qinq,]"},
		{"help", "help [command]..."},
		{"echo # nothing", "echo [args]..."},
	} {
		if got := mustCompile(t, c, tt.line); got.Pattern != tt.pattern || got.Original != tt.line {
			t.Errorf("Compile(%q) = %q from %q, want %q", tt.line, got.Pattern, got.Original, tt.pattern)
		}
	}
}

func TestArguments(t *testing.T) {
	c := language(t)
	got := mustCompile(t, c, `  vm net BOND "my vm" 0,1 active-backup PASS na bond0 qinq  # why `)
	want := &Command{
		Handler:  got.Handler,
		Pattern:  "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive,off> name <name> [qinq,]",
		Original: `vm net BOND "my vm" 0,1 active-backup PASS na bond0 qinq  # why`,
		Strings:  map[string]string{"vm": "my vm", "interface": "0,1", "name": "bond0"},
		Choices:  map[string]bool{"bond": true, "active-backup": true, "passive": true, "qinq": true},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Command{})); d != "" {
		t.Error(d)
	}
	got = mustCompile(t, c, `vm config disks a.qc2,writeback "" c`)
	if d := cmp.Diff(map[string][]string{"diskspec": {"a.qc2,writeback", "", "c"}}, got.Lists); d != "" {
		t.Error(d)
	}
	if !got.Handler.owns(got.Pattern) || got.Has("diskspec") || got.Str("x") != "" || got.List("x") != nil || got.Chose("x") {
		t.Error("wrong handler or arguments out of nothing")
	}
}

// owns reports whether the pattern is one of the handler's.
func (h *Handler) owns(pattern string) bool {
	for _, p := range h.Patterns {
		if p == pattern {
			return true
		}
	}
	return false
}

func TestNested(t *testing.T) {
	c := language(t)
	got := mustCompile(t, c, `namespace foo  .json  true shell "a  b" 'c"d' '#' "" x`)
	if got.Original != `namespace foo  .json  true shell "a  b" 'c"d' '#' "" x` {
		t.Errorf("outermost is %q", got.Original)
	}
	sub := got.Sub
	if sub.Original != `.json true shell "a  b" c"d #  x` || !sub.Chose("true") {
		t.Errorf("nested is %q, %v", sub.Original, sub.Choices)
	}
	if sub = sub.Sub; sub.Original != `shell "a  b" c"d #  x` || sub != got.Innermost() {
		t.Errorf("innermost is %q", sub.Original)
	}
	if d := cmp.Diff([]string{"a  b", `c"d`, "#", "", "x"}, sub.List("command")); d != "" {
		t.Error(d)
	}
}

func TestBlankAndComment(t *testing.T) {
	c := language(t)
	for _, line := range []string{"", "  \t ", "\n"} {
		if cmd, err := c.Compile(line); cmd != nil || err != nil {
			t.Errorf("Compile(%q) = %v, %v", line, cmd, err)
		}
	}
	if cmd := mustCompile(t, c, ` # "what \x `); !cmd.Nop() || cmd.Original != `# "what \x` {
		t.Errorf("a comment is %+v", cmd)
	}
	if mustCompile(t, c, "version").Nop() {
		t.Error("a command is a comment")
	}
}

func TestErrors(t *testing.T) {
	c := language(t)
	for _, tt := range []struct{ line, want string }{
		{"vm config s", "invalid command: `vm config s`\nambiguous: it could be vm config schedule, vm config serial-ports, vm config snapshot, vm config sockets, vm config state"},
		{"namespace foo vm config s", "invalid command: `namespace foo vm config s`\nambiguous: it could be vm config schedule, vm config serial-ports, vm config snapshot, vm config sockets, vm config state"},
		{" vn  fb", "invalid command: `vn  fb`\nit could go on as: vnc record, vnc stop, vnc play, vnc type, vnc pause, vnc continue, vnc step, vnc getstep, ..."},
		{"verison", "invalid command: `verison`\ndid you mean: version"},
		{"vm lunch kvm foo", "invalid command: `vm lunch kvm foo`\ndid you mean: vm launch"},
		{".json true vm lunch kvm foo", "invalid command: `.json true vm lunch kvm foo`\ndid you mean: vm launch"},
		{"vm launch kvm", "invalid command: `vm launch kvm`\nusage: vm launch <kvm,> <name or count> [config]"},
		{"vm launch kvm a b c", "invalid command: `vm launch kvm a b c`\nusage: vm launch <kvm,> <name or count> [config]"},
		{"vm net bond foo 0 balance active", "invalid command: `vm net bond foo 0 balance active`\ndid you mean: vm net bond <vm target> <interface indexes> balance-slb, vm net bond <vm target> <interface indexes> balance-tcp"},
		{"xyzzy", "invalid command: `xyzzy`"},
		{`""`, "invalid command: `\"\"`\nambiguous: it could be .alias, .annotate, .compress, .csv, .env, .headers, .json, .preprocess, ..."},
		{`shell "foo`, `missing terminal "`},
		{`shell 'foo"`, `missing terminal '`},
		{`shell \x`, "unexpected escaped character: x"},
		{`shell \é`, "unexpected escaped character: é"},
		{`shell foo\`, "expected escape character"},
	} {
		_, err := c.Compile(tt.line)
		if err == nil {
			t.Errorf("Compile(%q) is no error", tt.line)
			continue
		}
		if err.Error() != tt.want {
			t.Errorf("Compile(%q):\ngot  %q\nwant %q", tt.line, err, tt.want)
		}
		var ce *CompileError
		if strings.HasPrefix(tt.want, "invalid command") != errors.As(err, &ce) {
			t.Errorf("Compile(%q): error of type %v", tt.line, reflect.TypeOf(err))
		}
	}
}

// What is typed as the language writes it comes before what differs in case.
func TestCase(t *testing.T) {
	c, err := New(&Handler{Patterns: []string{"foo <a,B>", "Foo <x>", "FOX"}})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"foo a": "foo <a,B>", "Foo a": "Foo <x>", "FOX": "FOX", "fox": "FOX", "foo b": "", "fo B": "foo <a,B>", "foo x": "Foo <x>",
	} {
		cmd, err := c.Compile(line)
		if want == "" {
			if err == nil {
				t.Errorf("%q is %q, want it to be ambiguous", line, cmd.Pattern)
			}
		} else if err != nil || cmd.Pattern != want {
			t.Errorf("%q: %v, %v, want %q", line, cmd, err, want)
		}
	}
	if cmd := mustCompile(t, c, "fo B"); !cmd.Chose("B") || cmd.Chose("b") {
		t.Errorf("choices %v", cmd.Choices)
	}
}

// A CLI may be used by many at once.
func TestConcurrent(t *testing.T) {
	c := language(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				mustCompile(t, c, "namespace foo .json true vm config net a b")
				_, _ = c.Compile("vm config s")
				c.Suggest("vm st", nil)
				c.Help([]string{"vm"})
			}
		})
	}
	wg.Wait()
}

// Patterns that come last give way to all others, also to abbreviations of these.
func TestLast(t *testing.T) {
	c, err := New(
		&Handler{Patterns: []string{"deploy <launch,> <hosts> <user> [sudo,]", "deploy <flags,> [flags]..."}},
		&Handler{Patterns: []string{"deploy <hosts> <user> <password>", "deploy all the <rest>"}, Last: true})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"deploy launch h root":   "deploy <launch,> <hosts> <user> [sudo,]",
		"deploy la h root":       "deploy <launch,> <hosts> <user> [sudo,]",
		"DEPLOY LA h root":       "deploy <launch,> <hosts> <user> [sudo,]",
		"de l h root s":          "deploy <launch,> <hosts> <user> [sudo,]",
		"deploy f a b":           "deploy <flags,> [flags]...",
		"deploy n[1-3] root x":   "deploy <hosts> <user> <password>",
		"DEPLOY n[1-3] root x":   "deploy <hosts> <user> <password>",
		"deploy launched root x": "deploy <hosts> <user> <password>",
	} {
		if got := mustCompile(t, c, line); got.Pattern != want {
			t.Errorf("%q is %q, want %q", line, got.Pattern, want)
		}
	}
	for _, line := range []string{"deploy n1 root", "deploy n1 root x y", "deploy all the x"} {
		if got, err := c.Compile(line); err == nil {
			t.Errorf("%q is %q", line, got.Pattern)
		}
	}
}
