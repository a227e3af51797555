package vm_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

func TestDiskPath(t *testing.T) {
	f := vm.SaveFiles{Disk: "x.hdd"}
	for i, want := range []string{"x.hdd", "x.hdd.1", "x.hdd.1.2"} {
		if got := f.DiskPath(i); got != want {
			t.Errorf("disk %d: %s, want %s", i, got, want)
		}
	}
}

// TestAbilities asks machines for what they cannot do: one answer for all.
func TestAbilities(t *testing.T) {
	net := &vmtest.Network{}
	m := vm.NewManager(vm.Options{Base: t.TempDir(), Engines: []vm.Engine{&vmtest.Engine{}}, Network: net, Log: slog.New(slog.DiscardHandler)}, 0)
	defer m.Close()
	ctx := t.Context()
	if err := m.Launch(ctx, []vm.Request{{Namespace: "n", Name: "a", Type: vm.KVM, Config: vm.NewConfig()}}, nil); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"save":        m.Save(ctx, "n", "a", vm.SaveFiles{State: "/s", Disk: "/d"}),
		"hotplug":     m.HotplugAdd(ctx, "n", "a", "/x", "", ""),
		"cdrom":       m.ChangeCD(ctx, "n", "a", "", false),
		"add network": m.AddNets(ctx, "n", "a", []vm.NetConfig{{VLAN: 1}}),
	} {
		if !errors.Is(err, errs.Unsupported) || !strings.HasPrefix(err.Error(), "VM a: ") || !strings.HasSuffix(err.Error(), what+": not supported by kvm") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if net.Len() != 0 {
		t.Error("a port was left")
	}
	if err := m.HotplugRemove(ctx, "n", "a", 0, true, false); !errors.Is(err, errs.Unsupported) {
		t.Error(err)
	}
	if err := m.HotplugRemove(ctx, "n", "all", 0, true, true); err != nil {
		t.Errorf("for all: %v", err)
	}
	if err := m.Kill(ctx, "n", "a"); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(ctx, "n", "a", vm.SaveFiles{}); err == nil || err.Error() != "vm not running: 0" {
		t.Error(err)
	}
	if err := m.AddNets(ctx, "n", "a", nil); err == nil || err.Error() != "VM state error: a" {
		t.Error(err)
	}
}
