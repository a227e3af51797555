package deploy

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"minimega/internal/errs"
)

func deployer() *Deployer {
	return New(Options{Host: "boss", DefaultBase: "/tmp/minimega", Log: slog.New(slog.DiscardHandler),
		Flags: func() (names, values []string) {
			return []string{"base", "context", "e", "headnode", "mesh-key", "nostdin", "pipe", "port"},
				[]string{"/base", "a b", "false", "other", "/etc/key", "false", "", "9000"}
		},
		Check: func(flags []string) error {
			if slices.Contains(flags, "-bad") {
				return errors.New("bad is no flag")
			}
			return nil
		}})
}

func TestFlags(t *testing.T) {
	d := deployer()
	want := []string{"-headnode=boss", "-base=/base", "-context=a b", "-mesh-key=/etc/key", "-nostdin=true", "-port=9000"}
	if got := d.Flags(); !slices.Equal(got, want) {
		t.Errorf("default: %q", got)
	}
	for _, tt := range []struct{ set, want string }{
		{"-base /x", "-base /x -nostdin=true"},
		{"-base /x -nostdin=true -v", "-base /x -nostdin=true -v"},
		{"-nostdin", "-nostdin"},
		{"--nostdin=true", "--nostdin=true"},
		{"-nostdin=false", "-nostdin=false"},
		{"", "-nostdin=true"},
	} {
		if err := d.SetFlags(strings.Fields(tt.set)); err != nil {
			t.Error(err)
		}
		if got := strings.Join(d.Flags(), " "); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.set, got, tt.want)
		}
	}
	for _, bad := range []string{"-bad", "-context=a\nb"} {
		if err := d.SetFlags([]string{bad}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got := strings.Join(d.Flags(), " "); got != "-nostdin=true" {
		t.Errorf("after bad ones: %q", got)
	}
	d.ClearFlags()
	if got := d.Flags(); !slices.Equal(got, want) {
		t.Errorf("cleared: %q", got)
	}
	if got := New(Options{Host: "h"}).Flags(); !slices.Equal(got, []string{"-headnode=h", "-nostdin=true"}) {
		t.Errorf("of a daemon without flags: %q", got)
	}
}

func TestWithKeyAt(t *testing.T) {
	for _, tt := range []struct{ flags, want, key string }{
		{"-v -port=1", "-v -port=1", ""},
		{"-mesh-key /k -v", "-mesh-key /there -v", "/k"},
		{"-v --mesh-key=/k", "-v -mesh-key=/there", "/k"},
		{"-mesh-key=/a -mesh-key /b", "-mesh-key=/a -mesh-key /there", "/b"},
		{"-mesh-key=", "-mesh-key=", ""},
		{"-mesh-key", "-mesh-key", ""},
		{"-mesh-keys /k", "-mesh-keys /k", ""},
	} {
		flags := strings.Fields(tt.flags)
		got, key := withKeyAt(flags, "/there")
		if strings.Join(got, " ") != tt.want || key != tt.key {
			t.Errorf("%q became %q, key %q; want %q, %q", tt.flags, got, key, tt.want, tt.key)
		}
		if strings.Join(flags, " ") != tt.flags {
			t.Errorf("the flags given were changed: %q", flags)
		}
	}
}

func FuzzFlagAt(f *testing.F) {
	for _, s := range []string{"", "-base /x", "-base=/x -v", "--base", "---base=x", "- -- -=", "-base -base"} {
		f.Add(s, "base")
	}
	f.Fuzz(func(t *testing.T, line, name string) {
		flags := strings.Split(line, " ")
		at, value, next := flagAt(flags, name)
		if at < -1 || at >= len(flags) || next && (at < 0 || flags[at+1] != value) {
			t.Errorf("%q in %q: %d %q %v", name, flags, at, value, next)
		}
		if at >= 0 && !strings.Contains(flags[at], name) {
			t.Errorf("%q in %q: %d", name, flags, at)
		}
	})
}

func TestOutput(t *testing.T) {
	d := deployer()
	if out, err := d.Output(); out != "/dev/null" || err != "/dev/null" {
		t.Errorf("default: %s, %s", out, err)
	}
	for _, bad := range []string{"", "x", "~/x", "/a\nb"} {
		if err := d.SetStdout(bad); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := errors.Join(d.SetStdout("/a b"), d.SetStderr("/c")); err != nil {
		t.Fatal(err)
	}
	if out, err := d.Output(); out != "/a b" || err != "/c" {
		t.Errorf("set: %s, %s", out, err)
	}
}

func TestFileName(t *testing.T) {
	d := deployer()
	seen := map[string]bool{}
	for range 5 {
		name := d.fileName()
		if seen[name] || !strings.HasPrefix(name, "/tmp/minimega_deploy_") {
			t.Errorf("%s again", name)
		}
		seen[name] = true
	}
}

func TestFailed(t *testing.T) {
	if err := Failed([]Result{{Host: "a"}, {Host: "b"}}); err != nil {
		t.Error(err)
	}
	results := []Result{{Host: "a"}}
	for range 25 {
		results = append(results, Result{Host: "b", Err: errs.New(errs.Unreachable, "gone")})
	}
	err := Failed(results)
	if text := err.Error(); !errors.Is(err, errs.Unreachable) || !strings.HasPrefix(text, "minimega was not started on 25 of 26 hosts:\nb: gone\n") ||
		!strings.HasSuffix(text, "\nand 5 more") {
		t.Errorf("%v", err)
	}
}
