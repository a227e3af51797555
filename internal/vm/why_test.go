package vm_test

import (
	"strings"
	"testing"

	"minimega/internal/vm"
)

// All VMs that do not run are explained, by ID, and no others.
func TestWhyAll(t *testing.T) {
	w := newWorld(t)
	if err := w.launch(t, vm.NewConfig(), "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), "ns", "b"); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill(t.Context(), "ns", "c"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, y := range w.WhyAll(t.Context(), "ns") {
		got = append(got, y.Name+" "+y.State)
		if y.VMs != 1 || len(y.Findings) == 0 || y.Findings[0].About != "state" {
			t.Errorf("%+v", y)
		}
	}
	if strings.Join(got, ", ") != "a BUILDING, c QUIT" {
		t.Errorf("explained: %q", got)
	}
	if got := w.WhyAll(t.Context(), "other"); len(got) != 0 {
		t.Errorf("of another namespace: %+v", got)
	}
}

// A configuration is looked at before there is a VM.
func TestLaunchable(t *testing.T) {
	w := newWorld(t)
	c := vm.NewConfig()
	c.Memory = 1 << 40
	for _, f := range w.Launchable(t.Context(), vm.KVM, c) {
		if f.Good != (f.About != "memory") {
			t.Errorf("%+v", f)
		}
	}
	for _, f := range w.Launchable(t.Context(), vm.Container, vm.NewConfig()) {
		if f.About == "launch" && (f.Good || !strings.Contains(f.Text, "no engine")) {
			t.Errorf("%+v", f)
		}
	}
}
