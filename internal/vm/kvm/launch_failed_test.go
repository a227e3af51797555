package kvm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// instance lists what a failed launch left.
func instance(t *testing.T, s *vm.Spec) string {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// running counts processes that mention the instance directory.
func running(t *testing.T, s *vm.Spec) int {
	t.Helper()
	n := 0
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), s.Dir+"/") {
			n++
		}
	}
	return n
}

func script(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFailedLaunch fails each step in turn.
func TestFailedLaunch(t *testing.T) {
	for name, c := range map[string]struct {
		opts Options
		set  func(t *testing.T, s *vm.Spec)
		want string
		kind errs.Kind
	}{
		"no QEMU": {tcg, func(t *testing.T, s *vm.Spec) { s.Config.QemuPath = "no-such-qemu" },
			"start QEMU: QEMU not found: there is no program no-such-qemu (install the package qemu-system-x86, or set `vm config qemu`)", errs.NotFound},
		"not a program": {tcg, func(t *testing.T, s *vm.Spec) { s.Config.QemuPath = newImage(t, "x", "raw", "512") },
			"start QEMU: QEMU cannot be run: ", errs.Permission},
		"bad device": {tcg, func(t *testing.T, s *vm.Spec) { s.Config.QemuAppend = []string{"-device", "bogus"} },
			"start QEMU: QEMU ended: exit status 1: qemu-system-x86_64: -device bogus: 'bogus' is not a valid device model name", errs.State},
		"bad option": {tcg, func(t *testing.T, s *vm.Spec) { s.Config.QemuAppend = []string{"-bogus"} },
			"start QEMU: QEMU ended: exit status 1: qemu-system-x86_64: -bogus: invalid option", errs.State},
		"no memory": {tcg, func(t *testing.T, s *vm.Spec) { s.Config.Memory = 1 << 40 },
			"start QEMU: QEMU ended: exit status 1: qemu-system-x86_64: ", errs.State},
		"locked image": {tcg, locked, "start QEMU: QEMU ended: exit status 1: qemu-system-x86_64: Failed to get ", errs.State},
		"disk missing": {tcg, func(t *testing.T, s *vm.Spec) {
			s.Config.Disks = []vm.DiskConfig{{Path: newImage(t, "x", "raw", "512")}, {Path: "/nonexistent"}}
		}, "create disk overlays: disk image /nonexistent does not exist", errs.NotFound},
		"full disk": {tcg, full, "create disk overlays: ", errs.Resource},
		"silent": {Options{Accel: "tcg", StartTimeout: 300 * time.Millisecond}, func(t *testing.T, s *vm.Spec) {
			s.Config.QemuPath = script(t, "echo warming up; kill -STOP $$")
		}, "connect to QMP: QEMU does not answer: context deadline exceeded; it says: warming up", errs.Unreachable},
		"no address": {Options{Accel: "tcg", VNCListen: "203.0.113.1"}, func(*testing.T, *vm.Spec) {}, "open VNC: listen tcp 203.0.113.1:0: ", errs.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			for {
				e := newEngine(t, c.opts)
				s := spec(t, 1, small())
				before := instance(t, s)
				c.set(t, s)
				if name == "full disk" {
					before = "ballast"
				}
				_, err := e.Launch(within(t, time.Minute), s)
				if left := instance(t, s); left != before {
					t.Errorf("left behind: %s", left)
				}
				if n := running(t, s); n != 0 {
					t.Errorf("%d processes left", n)
				}
				if err != nil && strings.HasPrefix(err.Error(), "VM "+s.Name+": "+c.want) && errors.Is(err, c.kind) {
					return
				}
				c.opts.StartTimeout *= 4
				if c.opts.StartTimeout == 0 || c.opts.StartTimeout > 30*time.Second { // else it may not have got as far
					t.Fatalf("got %v (%s)\nwant %s (%s)", err, errs.KindOf(err), c.want, c.kind)
				}
			}
		})
	}
}

// locked opens an image behind the back of Check, so that QEMU has to notice.
func locked(t *testing.T, s *vm.Spec) {
	path := newImage(t, "img", "raw", "1M")
	s.Config.Snapshot, s.Config.Disks = false, []vm.DiskConfig{{Path: path}}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 2} // consistent read, write
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
		t.Fatal(err)
	}
}

// full puts the instance directory on a file system without room.
func full(t *testing.T, s *vm.Spec) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(s.Dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(s.Dir, "ballast"), make([]byte, 44<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	a, b := newImage(t, "a", "raw", "1M"), newImage(t, "b", "raw", "1M")
	s.Config.Disks = []vm.DiskConfig{{Path: a}, {Path: b}, {Path: a + "/../b"}}
}

func TestLaunchCancelled(t *testing.T) {
	e := newEngine(t, tcg)
	s := spec(t, 1, small())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Launch(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if left := instance(t, s); left != "" || running(t, s) != 0 {
		t.Errorf("left behind: %s, %d processes", left, running(t, s))
	}
}
