package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// rooms are file systems that a test has prepared. They count who holds them.
type rooms struct {
	root Root
	held int
}

func (r *rooms) Root(context.Context, string) (Root, error) {
	r.held++
	root := r.root
	root.Release = func() error { r.held--; return nil }
	return root, nil
}

// stack gives a bench a file system of two layers, of which the upper hides
// /gone, and a program of its own.
func stack(t *testing.T, p *Program, fail error) (*bench, *rooms) {
	r := &rooms{}
	b := newBenchWith(t, Options{Roots: r})
	upper := filepath.Join(b.base, "upper")
	if err := os.MkdirAll(filepath.Join(upper, "srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(upper, "srv/page"), []byte("upper"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.root = Root{Lower: []string{upper, b.root}, Shared: true, Program: func() (*Program, error) { return p, fail }}
	return b, r
}

// What an image wants to run is run, as whom and where it wants.
func TestProgramOfImage(t *testing.T) {
	b, r := stack(t, &Program{Args: []string{"/guest", "sleep"}, Env: []string{"A=b", "PATH=/bin"}, Dir: "/srv/new/dir", UID: 77, GID: 88, Groups: []uint32{5, 6, 7}}, nil)
	c := b.config()
	c.Init = vm.NewConfig().Init
	if err := b.engine.Check(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	m := b.start(c)
	if r.held != 0 {
		t.Errorf("the file system is held %d times", r.held)
	}
	proc := fmt.Sprintf("/proc/%d/", m.Pid())
	read := func(name string) string {
		text, err := os.ReadFile(proc + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	until(t, "the program", func() bool { return read("cmdline") == "/guest\x00sleep\x00" })
	if got := read("environ"); got != "A=b\x00PATH=/bin\x00" {
		t.Errorf("environment %q", got)
	}
	status := read("status")
	for _, want := range []string{"Uid:\t77\t77\t77\t77\n", "Gid:\t88\t88\t88\t88\n", "Groups:\t5 6 7 \n", "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in %s", want, status)
		}
	}
	if dir, err := os.Readlink(proc + "cwd"); err != nil || dir != "/srv/new/dir" {
		t.Errorf("working directory %q, %v", dir, err)
	}
	if text := read("root/srv/page"); text != "upper" {
		t.Errorf("/srv/page: %q", text)
	}
}

// What the configuration says comes first.
func TestInitBeatsImage(t *testing.T) {
	b, _ := stack(t, nil, errors.New("not to be asked"))
	if shown := b.succeeds(b.config("show")); !strings.Contains(shown, "env: 0 uid: 0") || !strings.Contains(shown, "cwd: /\r\n") {
		t.Error(shown)
	}
}

func TestBadImages(t *testing.T) {
	for name, c := range map[string]struct {
		program *Program
		change  func(*vm.Config, *rooms)
		kind    errs.Kind
		text    string
	}{
		"in place":        {change: func(c *vm.Config, _ *rooms) { c.Snapshot = false }, kind: errs.Unsupported, text: "snapshot true"},
		"one layer":       {change: func(c *vm.Config, r *rooms) { c.Snapshot = false; r.root.Lower = r.root.Lower[:1] }, kind: errs.Unsupported, text: "others may use it"},
		"zero byte":       {program: &Program{Args: []string{"/guest", "a\x00b"}}, kind: errs.Invalid, text: "zero byte"},
		"too long":        {program: &Program{Args: []string{"/guest"}, Env: []string{strings.Repeat("x", maxWords)}}, kind: errs.Invalid, text: "too long"},
		"file as place":   {program: &Program{Args: []string{"/guest"}, Dir: "/srv/page"}, kind: errs.Internal, text: "working directory"},
		"no such program": {program: &Program{Args: []string{"/none"}}, kind: errs.NotFound, text: "/none"},
		"too many layers": {change: func(_ *vm.Config, r *rooms) {
			for len(r.root.Lower) < 600 {
				r.root.Lower = append(r.root.Lower, r.root.Lower[0])
			}
		}, kind: errs.Unsupported, text: "too many for the kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			b, r := stack(t, c.program, nil)
			cfg := b.config()
			cfg.Init = vm.NewConfig().Init
			if c.change != nil {
				c.change(cfg, r)
			}
			_, err := b.engine.Launch(t.Context(), b.spec(cfg))
			if errs.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%s: %v", errs.KindOf(err), err)
			}
			if r.held != 0 {
				t.Errorf("the file system is held %d times", r.held)
			}
		})
	}
}
