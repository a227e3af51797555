package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"minimega/internal/host/hosttest"
)

func TestMounts(t *testing.T) {
	text := `31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /sys/fs/cgroups rw - cgroup cgroup rw,pids
43 31 0:38 / /elsewhere rw - cgroup cgroup rw,freezer
short - cgroup
`
	v1, v2, err := mounts(strings.NewReader(text), "/sys/fs/cgroup")
	if err != nil || v2 != "/sys/fs/cgroup/unified" || len(v1) != 2 || v1["cpu"] != "/sys/fs/cgroup/cpu,cpuacct" || v1["memory"] != "/sys/fs/cgroup/memory" {
		t.Errorf("%v %q %v", v1, v2, err)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	f.Add("41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
	f.Fuzz(func(t *testing.T, text string) {
		v1, v2, err := mounts(strings.NewReader(text), "/sys/fs/cgroup")
		if err != nil {
			return
		}
		for c, dir := range v1 {
			if !slices.Contains(wanted, c) || !strings.HasPrefix(dir, "/sys/fs/cgroup") {
				t.Fatalf("%q in %q", c, dir)
			}
		}
		if v2 != "" && !strings.HasPrefix(v2, "/sys/fs/cgroup") {
			t.Fatal(v2)
		}
	})
}

func tree(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: control groups")
	}
	parent := fmt.Sprintf("minimega/test%d-", os.Getpid())
	hosttest.Machine{Marks: []string{parent}}.Check(t)
	tr, err := Open(DefaultRoot, parent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// enter runs a program in a group of version 1.
func enter(t *testing.T, g *Group, program string) *exec.Cmd {
	t.Helper()
	var script strings.Builder
	for _, f := range g.Enter() {
		fmt.Fprintf(&script, "echo 0 > %s\n", f)
	}
	cmd := exec.Command("/bin/sh", "-c", script.String()+"exec "+program)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func TestGroup(t *testing.T) {
	tr := tree(t)
	if tr.unified != "" {
		t.Skip("the system has version 2 only")
	}
	g, err := tr.Make("one", Limits{CPUs: 2, Memory: 64 << 20, Pids: 7})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(g.Kill(ctx), g.Remove(ctx), g.Remove(ctx)); err != nil {
			t.Error(err)
		}
	})
	for file, want := range map[string]string{"cpu.cfs_quota_us": "2000000", "cpu.cfs_period_us": "1000000", "pids.max": "7",
		"memory.limit_in_bytes": "67108864"} {
		c, _, _ := strings.Cut(file, ".")
		if got, err := get(filepath.Join(tr.dirs[c], "one"), file); got != want || err != nil {
			t.Errorf("%s: %q %v", file, got, err)
		}
	}
	enter(t, g, "sleep 1000")
	ctx := t.Context()
	err = await(ctx, "the process", func() (bool, error) { p, err := g.Pids(); return len(p) == 1, err })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false, true} {
		change := g.Thaw
		if want {
			change = g.Freeze
		}
		if err := change(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := g.Frozen(); got != want || err != nil {
			t.Errorf("frozen %v %v, want %v", got, err, want)
		}
	}
	if err := g.Kill(ctx); err != nil { // while it is frozen
		t.Fatal(err)
	}
}

// Close removes the groups that an earlier daemon left, and none with a process.
func TestCloseRemovesEmptyGroups(t *testing.T) {
	tr := tree(t)
	if tr.unified != "" {
		t.Skip("the system has version 2 only")
	}
	for _, name := range []string{"empty", "busy"} {
		if _, err := tr.Make(name, Limits{Pids: 7}); err != nil {
			t.Fatal(err)
		}
	}
	busy := tr.Group("busy")
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(busy.Kill(ctx), busy.Remove(ctx)); err != nil {
			t.Error(err)
		}
	})
	enter(t, busy, "sleep 1000")
	controllers := []string{"cpu", "memory", "pids", "freezer"}
	for _, c := range controllers { // it enters one after the other
		err := await(t.Context(), "the process in "+c, func() (bool, error) {
			procs, err := get(filepath.Join(tr.dirs[c], "busy"), "cgroup.procs")
			return procs != "", err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range controllers {
		if _, err := os.Stat(filepath.Join(tr.dirs[c], "empty")); err == nil {
			t.Errorf("%s: the group without processes is still there", c)
		}
		if _, err := os.Stat(filepath.Join(tr.dirs[c], "busy")); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
}

func TestMakeLeavesNothing(t *testing.T) {
	tr := tree(t)
	if _, err := tr.Make("a/b", Limits{}); err == nil {
		t.Fatal("made a group in a group that there is not")
	}
}

// The hierarchies that the system has can be mounted out of sight.
func TestHidden(t *testing.T) {
	seen := tree(t)
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	h, err := mountHidden(own)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	}()
	for c := range seen.dirs {
		if _, err := os.Stat(filepath.Join(h.v1[c], "tasks")); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	if seen.unified != "" {
		if _, err := os.Stat(filepath.Join(h.v2, "cgroup.procs")); err != nil {
			t.Error(err)
		}
	}
}

// The kernel runs the program of version 2 on the device given, and agrees
// with the list of version 1.
func TestDeviceProgram(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: BPF")
	}
	prog, err := loadDeviceProgram()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(prog)
	for _, c := range []struct {
		access, kind, major, minor uint32
		want                       bool
	}{
		{accRead | accWrite, devChar, 1, 3, true}, {accRead, devChar, 1, 1, false}, {accMknod, devChar, 1, 1, true},
		{accMknod | accRead, devChar, 1, 1, false}, {accRead | accWrite, devChar, 136, 77, true}, {accRead, devBlock, 1, 3, false},
		{accMknod, devBlock, 8, 0, true}, {accWrite, devChar, 10, 232, false}, {accRead, devChar, 5, 1, false}, {accRead, devChar, 5, 2, true},
	} {
		if got := interpret(t, deviceProgram(allowed), c.access<<16|c.kind, c.major, c.minor); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// interpret runs a device program: of eBPF it knows what these use.
func interpret(t *testing.T, prog []uint64, context ...uint32) bool {
	t.Helper()
	var r [11]uint32
	for pc := 0; pc < len(prog); pc++ {
		i := prog[pc]
		op, dst, src := byte(i), i>>8&15, i>>12&15
		off, imm := int16(i>>16), uint32(i>>32)
		switch op {
		case 0x61:
			r[dst] = context[off/int16(unsafe.Sizeof(context[0]))]
		case 0xbf:
			r[dst] = r[src]
		case 0xb7:
			r[dst] = imm
		case 0x57:
			r[dst] &= imm
		case 0x77:
			r[dst] >>= imm
		case 0x55:
			if r[dst] != imm {
				pc += int(off)
			}
		case 0x95:
			return r[0] == 1
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	t.Fatal("no end")
	return false
}
