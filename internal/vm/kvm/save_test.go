package kvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

// counting counts up at 0x7e00, and writes the count to the second sector of
// its disk each time.
var counting = []byte{
	0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, // segments 0, stack below 0x7c00
	0x66, 0xc7, 0x06, 0x00, 0x7e, 0, 0, 0, 0, // mov dword [0x7e00], 0
	0x66, 0xff, 0x06, 0x00, 0x7e, // inc dword [0x7e00]
	0xb8, 0x01, 0x03, 0xbb, 0x00, 0x7e, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00, 0xcd, 0x13, // write it
	0xeb, 0xeb, // again
}

// count reads the guest's counter.
func count(t *testing.T, m *Machine) uint32 {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mem")
	if err := m.execute(within(t, time.Minute), "pmemsave", map[string]any{"val": 0x7e00, "size": 4, "filename": path}, nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 4 {
		t.Fatalf("pmemsave: %d bytes, %v", len(b), err)
	}
	return binary.LittleEndian.Uint32(b)
}

// diskCount reads the counter from a disk image.
func diskCount(t *testing.T, path string) uint32 {
	t.Helper()
	b := make([]byte, 1024)
	raw := filepath.Join(t.TempDir(), "raw")
	qemuImg(t, "convert", "-U", "-O", "raw", path, raw)
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.Uint32(b[512:])
}

func untilCount(t *testing.T, m *Machine, more uint32) {
	t.Helper()
	for end := time.Now().Add(time.Minute); count(t, m) <= more; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the guest does not count")
		}
	}
}

func saved(t *testing.T, m *Machine) vm.SaveStatus {
	t.Helper()
	last := 0.0
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, ok := m.Saved()
		if !ok || s.Percent < last || s.Percent > 100 {
			t.Fatalf("progress went from %v to %+v", last, s)
		}
		last = s.Percent
		if s.Status != vm.SaveActive {
			return s
		}
		if time.Now().After(end) {
			t.Fatal("the save does not end")
		}
	}
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := command(t, "qemu-img", args...); err != nil {
		t.Fatalf("qemu-img %v: %v: %s", args, err, out)
	}
}

// TestSaveRestore has a guest count in memory and on disk: a second machine
// goes on where the first was saved, and a second save harms nothing.
func TestSaveRestore(t *testing.T) {
	for name, snapshot := range map[string]bool{"overlay": true, "in place": false} {
		t.Run(name, func(t *testing.T) { saveRestore(t, snapshot) })
	}
}

func saveRestore(t *testing.T, snapshot bool) {
	e := newEngine(t, tcg)
	ctx := within(t, 3*time.Minute)
	c := small()
	c.Snapshot = snapshot
	c.Disks = []vm.DiskConfig{{Path: bootDisk(t, counting, nil)}, {Path: newImage(t, "second", "qcow2", "4M"), Interface: "virtio"}}
	m := launchVM(t, e, spec(t, 1, c))
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	untilCount(t, m, 3)
	dir := t.TempDir()
	to := vm.SaveFiles{State: filepath.Join(dir, "new/out;reboot '$(x)\".state"), Disk: filepath.Join(dir, "new/out.hdd")}
	if err := m.Save(ctx, to); err != nil {
		t.Fatal(err)
	}
	if s := saved(t, m); s.Status != vm.SaveCompleted || s.Percent != 100 {
		t.Fatalf("%+v", s)
	}
	at := count(t, m)
	if got := diskCount(t, to.Disk); got != at && got+1 != at {
		t.Errorf("memory has %d, the saved disk %d", at, got)
	}
	if entries, _ := os.ReadDir(filepath.Dir(to.Disk)); len(entries) != 3 {
		t.Errorf("files: %v", entries)
	}
	first, err := os.ReadFile(to.State)
	if err != nil {
		t.Fatal(err)
	}

	// The machine runs on and is saved again, elsewhere.
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	untilCount(t, m, at+3)
	for i := range 2 { // also without having run in between
		again := vm.SaveFiles{State: filepath.Join(dir, fmt.Sprint("again.state", i)), Disk: filepath.Join(dir, fmt.Sprint("again.hdd", i))}
		if err := m.Save(ctx, again); err != nil {
			t.Fatal(err)
		}
		if s := saved(t, m); s.Status != vm.SaveCompleted {
			t.Fatalf("save again: %+v", s)
		}
	}
	if now, err := os.ReadFile(to.State); err != nil || !bytes.Equal(now, first) {
		t.Errorf("the first state changed: %v", err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	restore(t, e, c, to, at)
}

func restore(t *testing.T, e *Engine, saved *vm.Config, from vm.SaveFiles, at uint32) {
	t.Helper()
	c := saved.Clone()
	c.Snapshot, c.MigratePath = true, from.State
	for i := range c.Disks {
		c.Disks[i].Path, c.Disks[i].SnapshotPath = from.DiskPath(i), ""
	}
	if err := e.Check(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	m := launchVM(t, e, spec(t, 2, c))
	if got := count(t, m); got != at {
		t.Errorf("restored at %d, saved at %d", got, at)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	untilCount(t, m, at+3)
	// Its own disk lies on the saved one, which must not be replaced by its save.
	err := m.Save(t.Context(), from)
	if !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "is the disk of a running VM (save under another name)") {
		t.Errorf("saved over its own disk: %v", err)
	}
}

// TestSaveFails ends saves at different points: nothing is left, the machine
// goes on.
func TestSaveFails(t *testing.T) {
	e := newEngine(t, tcg)
	c := small()
	c.Disks = []vm.DiskConfig{{Path: bootDisk(t, counting, nil)}}
	ctx := within(t, time.Minute)
	m := launchVM(t, e, spec(t, 1, c))
	tiny := tinyFS(t)
	good := t.TempDir()
	for name, f := range map[string]vm.SaveFiles{
		"state does not fit": {State: filepath.Join(tiny, "state"), Disk: filepath.Join(good, "hdd")},
		"disk does not fit":  {State: filepath.Join(good, "state"), Disk: filepath.Join(tiny, "hdd")},
		"directory":          {State: good, Disk: filepath.Join(good, "hdd")},
		"one file":           {State: filepath.Join(good, "x"), Disk: filepath.Join(good, "x")},
		"below a file":       {State: c.Disks[0].Path + "/x", Disk: filepath.Join(good, "hdd")},
	} {
		if err := m.Start(ctx); err != nil {
			t.Fatal(name, err)
		}
		err := m.Save(ctx, f)
		if err == nil {
			s := saved(t, m)
			if s.Status != vm.SaveFailed {
				t.Errorf("%s: %+v", name, s)
			}
			err = s.Err
		}
		t.Logf("%s: %v", name, err)
		for _, dir := range []string{good, tiny} {
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("%s left %v", name, entries)
			}
		}
		if n, noted := readSaveNote(m.dir); noted != nil || n.Stage != saveFailed || !strings.Contains(err.Error(), n.Text) {
			t.Errorf("%s: noted %+v, %v", name, n, noted)
		}
	}
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	untilCount(t, m, count(t, m))
}

// TestSaveKilled ends QEMU in the middle of a save.
func TestSaveKilled(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	c := small()
	c.Disks = []vm.DiskConfig{{Path: bootDisk(t, counting, nil)}}
	made, err := e.Launch(ctx, spec(t, 1, c))
	if err != nil {
		t.Fatal(err)
	}
	m := made.(*Machine)
	dir := t.TempDir()
	now := &save{m: m, log: m.log, ram: m.memory, status: vm.SaveStatus{Status: vm.SaveActive}}
	if err := errors.Join(m.beginSave(now), now.begin(ctx, vm.SaveFiles{State: filepath.Join(dir, "state"), Disk: filepath.Join(dir, "hdd")})); err != nil {
		t.Fatal(err)
	}
	hosttest.Freeze(t, m.Pid()) // so that it does not come to its end
	m.wg.Go(now.run)
	if err := m.Start(ctx); !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "being saved") {
		t.Errorf("started during a save: %v", err)
	}
	if err := m.Save(ctx, vm.SaveFiles{State: "/tmp/x", Disk: "/tmp/y"}); !errors.Is(err, errs.State) {
		t.Errorf("saved during a save: %v", err)
	}
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("a kill left %v", entries)
	}
	if now, ok := e.Saved(m.dir); !ok || now.Status != vm.SaveFailed {
		t.Errorf("noted: %+v", now)
	}
	if h, err := disk.Inspect(c.Disks[0].Path); err != nil || h.Format != "raw" {
		t.Errorf("the image: %+v, %v", h, err)
	}
}

// TestBadState starts from what is no state.
func TestBadState(t *testing.T) {
	e := newEngine(t, tcg)
	c := small()
	c.MigratePath = newImage(t, "no.state", "raw", "1M")
	s := spec(t, 1, c)
	_, err := e.Launch(within(t, time.Minute), s)
	if !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "load the saved state: QEMU ended: exit status 1: ") ||
		!strings.Contains(err.Error(), "Not a migration stream") {
		t.Errorf("%v", err)
	}
	if left := instance(t, s); left != "" {
		t.Errorf("left %s", left)
	}
}
