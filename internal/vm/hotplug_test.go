package vm_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

// sockets is an engine whose machines take one USB disk, or say that it is locked.
type sockets struct {
	vmtest.Engine
	locked map[string]bool
}

type socket struct {
	vm.Machine
	e     *sockets
	disks []vm.HotplugDisk
}

func (e *sockets) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	m, err := e.Engine.Launch(ctx, s)
	for _, d := range s.Config.Disks {
		e.locked[d.Path] = true
	}
	e.locked[s.Config.CdromPath] = true
	return &socket{Machine: m, e: e}, err
}

func (s *socket) HotplugAdd(_ context.Context, image, version, _ string) error {
	switch {
	case version != "":
		return errs.New(errs.Invalid, "invalid version")
	case s.e.locked[image]:
		return errs.New(errs.State, "locked")
	}
	s.e.locked[image] = true
	s.disks = append(s.disks, vm.HotplugDisk{ID: 4, File: image})
	return nil
}

func (s *socket) HotplugRemove(context.Context, int) error { return nil }
func (s *socket) Hotplugged() []vm.HotplugDisk             { return s.disks }

// Whoever cannot have an image is told which VM has it, and what to do.
func TestHotplugInUse(t *testing.T) {
	e := &sockets{locked: map[string]bool{"/by another program": true}}
	m := vm.NewManager(vm.Options{Base: t.TempDir(), Engines: []vm.Engine{e}, Network: &vmtest.Network{}, Log: slog.New(slog.DiscardHandler)}, 0)
	defer m.Close()
	c := vm.NewConfig()
	c.Snapshot = false
	c.Disks, c.CdromPath = []vm.DiskConfig{{Path: "/0"}, {Path: "/1"}}, "/cd"
	if err := m.Launch(t.Context(), []vm.Request{{Namespace: "other", Name: "x", Type: vm.KVM, Config: c},
		{Namespace: "n", Name: "a", Type: vm.KVM, Config: vm.NewConfig()}, {Namespace: "n", Name: "b", Type: vm.KVM, Config: vm.NewConfig()}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ image, version, want string }{
		{"/1", "", "VM a: hotplug: disk image /1 is in use: VM x of namespace other has it as disk 1 (plug a copy of the image into a, or `namespace other vm kill x` first)"},
		{"/cd", "", "VM a: hotplug: disk image /cd is in use: VM x of namespace other has it as CD (plug a copy of the image into a, or `namespace other vm cdrom eject x` first)"},
		{"/1", "9", "VM a: hotplug: invalid version"},
		{"/by another program", "", "VM a: hotplug: locked"},
	} {
		if err := m.HotplugAdd(t.Context(), "n", "a", c.image, c.version, ""); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", c.image, err)
		}
	}
	const want = "VM b: hotplug: disk image /new is in use: VM a has it as USB disk 4 (plug a copy of the image into b, or `vm hotplug remove a 4` first)"
	err := m.HotplugAdd(t.Context(), "n", "all", "/new", "", "")
	if err == nil || err.Error() != want {
		t.Errorf("for all: %v", err)
	}
	if rows := m.Hotplugged("n"); len(rows) != 1 || rows[0].VM != "a" {
		t.Errorf("plugged in: %v", rows)
	}
	if err := m.HotplugAdd(t.Context(), "n", "none", "/y", "", ""); err == nil || !strings.Contains(err.Error(), "vm not found") {
		t.Error(err)
	}
}
