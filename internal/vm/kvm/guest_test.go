package kvm

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"minimega/internal/disk"
	"minimega/internal/vm"
)

// bootDisk makes a raw disk whose boot sector runs code and then powers the
// machine off (ACPI, as SeaBIOS sets it up on the type pc). Data follows at
// 0x7d00.
func bootDisk(t *testing.T, code, data []byte) string {
	b := make([]byte, 1<<20)
	off := []byte{
		0xba, 0x04, 0x06, // mov dx, 0x604
		0xb8, 0x00, 0x20, // mov ax, 0x2000
		0xef,       // out dx, ax
		0xfa, 0xf4, // cli; hlt
	}
	copy(b, append(bytes.Clone(code), off...))
	copy(b[256:], data)
	copy(b[510:], []byte{0x55, 0xaa})
	path := filepath.Join(t.TempDir(), "boot.img")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeFirstSector writes the 512 bytes at 0x7d00 to the start of the disk.
var writeFirstSector = []byte{
	0x31, 0xc0, 0x8e, 0xc0, // xor ax, ax; mov es, ax
	0xb8, 0x01, 0x03, // mov ax, 0x301: write one sector
	0xbb, 0x00, 0x7d, // mov bx, 0x7d00
	0xb9, 0x01, 0x00, // mov cx, 1
	0xba, 0x80, 0x00, // mov dx, 0x80
	0xcd, 0x13, // int 0x13
}

func runToEnd(t *testing.T, c *vm.Config) (dir string) {
	t.Helper()
	e := newEngine(t, tcg)
	s := spec(t, 1, c)
	m := launchVM(t, e, s)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Done():
	case <-time.After(60 * time.Second):
		t.Fatal("the guest does not power off")
	}
	if err := m.Err(); err != nil {
		t.Errorf("guest powered off: %v", err)
	}
	return s.Dir
}

// TestGuestWrites has a real guest write to its disk: with a snapshot the
// image stays, without it changes, and in no case can a guest turn a raw disk
// into the header of another format, which would name a file of the host as
// its backing file at the next launch.
func TestGuestWrites(t *testing.T) {
	plain := bytes.Repeat([]byte("guest"), 40)
	evil := qcow2Header(t)
	for name, c := range map[string]struct {
		data     []byte
		snapshot bool
		changes  bool
	}{"snapshot": {plain, true, false}, "direct": {plain, false, true}, "hostile": {evil, false, false}} {
		cfg := small()
		path := bootDisk(t, writeFirstSector, c.data)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Snapshot, cfg.Disks = c.snapshot, []vm.DiskConfig{{Path: path}}
		dir := runToEnd(t, cfg)
		after, err := os.ReadFile(path)
		if err != nil || bytes.Equal(before, after) == c.changes {
			t.Errorf("%s: changed %v, %v", name, !bytes.Equal(before, after), err)
		}
		if h, err := disk.Inspect(path); err != nil || h.Format != "raw" {
			t.Errorf("%s: now %+v, %v", name, h, err)
		}
		if c.snapshot {
			checkOverlay(t, filepath.Join(dir, "disk-0.qcow2"), c.data)
		}
	}
}

// qcow2Header returns the start of a real image.
func qcow2Header(t *testing.T) []byte {
	dir := t.TempDir()
	base, top := filepath.Join(dir, "base"), filepath.Join(dir, "top")
	if err := os.WriteFile(base, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disk.Overlay(base, top, true); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	return b[:250]
}

// checkOverlay looks for what the guest wrote.
func checkOverlay(t *testing.T, path string, data []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(b, data) {
		t.Errorf("overlay of %d bytes does not hold what the guest wrote, %v", len(b), err)
	}
}

// TestSavedState saves a running machine and launches another from it.
func TestSavedState(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	m := launchVM(t, e, spec(t, 1, small()))
	if err := m.Start(ctx); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.state")
	if err := m.execute(ctx, "migrate", map[string]string{"uri": "exec:cat > " + path}, nil); err != nil {
		t.Fatal(err)
	}
	reach(t, "postmigrate", func() string { return status(t, m) })
	c := small()
	c.MigratePath = path
	if err := e.Check(ctx, c); err != nil {
		t.Fatal(err)
	}
	again := launchVM(t, e, spec(t, 2, c))
	if err := again.Start(ctx); err != nil {
		t.Fatal(err)
	}
	reach(t, "running", func() string { return status(t, again) })
}

// reach waits until now returns want.
func reach(t *testing.T, want string, now func() string) {
	t.Helper()
	ctx := within(t, time.Minute)
	for now() != want {
		if err := pause(ctx, 10*time.Millisecond, nil); err != nil {
			t.Fatalf("%s, not %s", now(), want)
		}
	}
}
