package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/vm"
)

// Without a note nothing is plugged in that the next daemon would not know.
func TestHotplugUnnoted(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	m := launchVM(t, e, spec(t, 1, small()))
	path := filepath.Join(m.dir, pluggedName)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	image := newImage(t, "x", "raw", "1M")
	if err := m.HotplugAdd(ctx, image, "", ""); err == nil || !strings.Contains(err.Error(), "note the USB disks") {
		t.Errorf("%v", err)
	}
	if err := disk.Free(image, true); err != nil || len(m.Hotplugged()) != 0 {
		t.Errorf("left %v, %v", m.Hotplugged(), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := m.HotplugAdd(ctx, image, "", ""); err != nil {
		t.Error(err)
	}
}

// TestHotplug plugs disks in and out, with a daemon that changes in between.
func TestHotplug(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	s := spec(t, 1, small())
	made, err := e.Launch(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	m := made.(*Machine)
	one, two := newImage(t, `a"b\c,d e`, "raw", "1M"), newImage(t, "two", "qcow2", "1M")
	for version, image := range map[string]string{"1.1": one, "3.0": two} {
		if err := m.HotplugAdd(ctx, image, version, "serial,=\" 1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.HotplugAdd(ctx, one, "2.0", ""); !errors.Is(err, errs.State) {
		t.Errorf("the same image twice: %v", err)
	}
	// A daemon that dies over a third disk leaves a note, and perhaps a drive.
	if err := m.notePlugged(func(all map[int]vm.HotplugDisk) { all[2], all[5] = vm.HotplugDisk{ID: 2}, vm.HotplugDisk{ID: 5} }); err != nil {
		t.Fatal(err)
	}
	if said, err := m.monitor(ctx, "drive_add 0 id=hotplug2,if=none,file="+newImage(t, "half", "raw", "1M")); err != nil || said != "OK" {
		t.Fatalf("%q, %v", said, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	next := *s
	next.Config = small()
	again, err := e.Adopt(ctx, &next, m.Pid())
	if err != nil {
		t.Fatal(err)
	}
	defer reap(m.Pid())
	m = again.(*Machine)
	defer m.Close()
	defer m.Kill(ctx)
	if got := m.Hotplugged(); len(got) != 2 || got[0].ID != 0 || got[1].ID != 1 {
		t.Fatalf("adopted with %+v", got)
	}
	if err := m.HotplugAdd(ctx, newImage(t, "third", "raw", "1M"), "", ""); err != nil {
		t.Error(err)
	}
	for n := range 3 {
		if err := m.HotplugRemove(ctx, n); err != nil {
			t.Error(err)
		}
	}
	for range 20 { // the number is free as soon as the disk has gone
		if err := m.HotplugAdd(ctx, one, "", ""); err != nil {
			t.Fatal(err)
		}
		if err := m.HotplugRemove(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	all, err := m.blockDevices(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{one, two} {
		if _, ok := deviceOf(all, path); ok {
			t.Errorf("%s is still open", path)
		}
	}
	if got := m.Hotplugged(); len(got) != 0 {
		t.Errorf("left %+v", got)
	}
}
