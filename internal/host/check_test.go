package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"minimega/internal/errs"
)

func TestRunChecks(t *testing.T) {
	fine := Check{Name: "fine", Run: func(context.Context) error { return nil }}
	bad := Check{Name: "bad", Run: func(context.Context) error {
		return errs.WithRemedy(errors.New("is broken"), "mend it")
	}}
	found := RunChecks(t.Context(), []Check{fine, bad, fine})
	if len(found) != 1 || found[0].String() != "bad: is broken (mend it)" {
		t.Errorf("got %v", found)
	}
}

func TestMissingProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range []Check{Program("qemu-img", "qemu-utils"), QEMU()} {
		err := c.Run(t.Context())
		if !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "install qemu-") || !oneLine.MatchString(err.Error()) {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
	path := filepath.Join(os.Getenv("PATH"), "kvm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := QEMU().Run(t.Context()); err != nil {
		t.Errorf("kvm is there: %v", err)
	}
}

// Each program that is missing is named on a line, with what that prevents and
// its package; the others are not.
func TestTools(t *testing.T) {
	there := "xz"
	found := RunChecks(t.Context(), Tools(func(name string) (string, error) {
		if name == there {
			return "/bin/" + name, nil
		}
		return "", errs.New(errs.NotFound, "no")
	}))
	var got []string
	for _, f := range found {
		d := f.Diagnosis()
		got = append(got, d.Check)
		if !d.Optional || d.Kind != errs.NotFound || !strings.HasPrefix(d.Text, "not installed: ") || !strings.HasPrefix(d.Remedy, "apt-get install ") || !oneLine.MatchString(f.String()) {
			t.Errorf("%q: %+v", f, d)
		}
	}
	var want []string
	for _, tool := range tools {
		if tool.name != there {
			want = append(want, tool.name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found missing: %v, want %v", got, want)
	}
}

func TestFindProgram(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if path, err := FindProgram("minimega-test-tool"); err == nil {
		t.Errorf("found %s", path)
	}
	want := filepath.Join(dir, "minimega-test-tool")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := FindProgram("minimega-test-tool"); path != want || err != nil {
		t.Errorf("%s, %v", path, err)
	}
}

func TestKernelVersion(t *testing.T) {
	for release, want := range map[string]string{
		"6.1.0-13-amd64": "6.1 true", "3.10": "3.10 true", "x": "0.0 false", "6.18.0+": "6.18 true", "": "0.0 false",
	} {
		a, b, ok := kernelVersion(release)
		if got := fmt.Sprintf("%d.%d %v", a, b, ok); got != want {
			t.Errorf("%q: got %s, want %s", release, got, want)
		}
	}
	if err := checkKernel(2, 6); err != nil {
		t.Error(err)
	}
	if err := checkKernel(1000, 0); err == nil || !strings.Contains(err.Error(), "kernel version does not meet minimum: ") {
		t.Errorf("got %v", err)
	}
}

func TestCheckSpace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	if err := checkSpace(dir, 1); err != nil {
		t.Error(err)
	}
	if err := checkSpace(dir, 1<<62); !errors.Is(err, errs.Resource) {
		t.Errorf("got %v", err)
	}
}

func TestCheckTun(t *testing.T) {
	if err := checkTun(t.TempDir() + "/tun"); err == nil || !strings.Contains(err.Error(), "modprobe tun") {
		t.Errorf("got %v", err)
	}
}

// The probe leaves this process where it was.
func TestCheckBridge(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := checkBridge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		t.Errorf("in %s instead of %s", after, before)
	}
}

func TestBasicChecks(t *testing.T) {
	for _, f := range RunChecks(t.Context(), BasicChecks(t.TempDir())) {
		if !oneLine.MatchString(f.String()) || !strings.Contains(f.String(), "(") {
			t.Errorf("no remedy on one line: %q", f)
		}
	}
}
