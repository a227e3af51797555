package kvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/qmp"
	"minimega/internal/vm"
)

// tcg is for tests that are not about the probe.
var tcg = Options{Accel: "tcg"}

func newImage(t testing.TB, name, format, size string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := disk.Create(context.Background(), format, path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func status(t *testing.T, m *Machine) string {
	t.Helper()
	raw, err := m.QMP(within(t, 5*time.Second), json.RawMessage(`{"execute": "query-status"}`))
	var r struct {
		Return struct{ Status string } `json:"return"`
	}
	if err != nil || json.Unmarshal(raw, &r) != nil {
		t.Fatalf("query-status: %s, %v", raw, err)
	}
	return r.Return.Status
}

func TestLifeCycle(t *testing.T) {
	events := make(chan string, 100)
	e := newEngine(t, Options{Accel: "tcg", OnEvent: func(id int, e qmp.Event) { events <- fmt.Sprint(id, e.Name) }})
	c := small()
	c.SerialPorts, c.VirtioPorts, c.UUID = 1, "2", "b0d8a3f4-0000-4000-8000-000000000001"
	s := spec(t, 12, c)
	m := launchVM(t, e, s)
	ctx := within(t, 30*time.Second)
	if got := status(t, m); got != "prelaunch" {
		t.Errorf("after launch: %s", got)
	}
	for _, name := range []string{"qmp", "vnc", "cc", "serial0", "virtio-serial0", "virtio-serial1", "qemu.log"} {
		if _, err := os.Stat(filepath.Join(s.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(s.Dir, "qemu.pid")); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(m.Pid()) {
		t.Errorf("pid file %q of %d, %v", b, m.Pid(), err)
	}
	for _, step := range []struct {
		do    func(context.Context) error
		state string
		event string
	}{{m.Start, "running", "12RESUME"}, {m.Stop, "paused", "12STOP"}, {m.Start, "running", "12RESUME"}} {
		if err := step.do(ctx); err != nil {
			t.Fatal(err)
		}
		if got := status(t, m); got != step.state {
			t.Errorf("state %s, want %s", got, step.state)
		}
		if got := <-events; got != step.event {
			t.Errorf("event %s, want %s", got, step.event)
		}
	}
	checkVNC(t, m)
	checkScreenshot(t, m)
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := m.Err(); err != nil {
		t.Errorf("killed: %v", err)
	}
	if err := m.Start(ctx); !errors.Is(err, errs.State) {
		t.Errorf("start after the end: %v", err)
	}
	if _, err := net.Dial("tcp", m.VNC().Addr().String()); err == nil {
		t.Error("VNC still listens")
	}
	if err := unix.Kill(m.Pid(), 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("process: %v", err)
	}
}

// checkVNC reads the greeting of QEMU's server through the proxy.
func checkVNC(t *testing.T, m *Machine) {
	t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.VNC().Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 12)
	if _, err := conn.Read(b); err != nil || string(b) != "RFB 003.008\n" {
		t.Errorf("VNC greeting %q, %v", b, err)
	}
}

func TestGuestEnds(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, 30*time.Second)
	for name, c := range map[string]struct {
		end  func(m *Machine) error
		want string
	}{
		"shutdown": {func(m *Machine) error { return m.execute(ctx, "quit", nil, nil) }, ""},
		"term":     {func(m *Machine) error { return unix.Kill(m.Pid(), unix.SIGTERM) }, ""},
		"crash":    {func(m *Machine) error { return unix.Kill(m.Pid(), unix.SIGKILL) }, "QEMU ended: killed by signal 9 (killed), without a word"},
	} {
		m := launchVM(t, e, spec(t, 1, small()))
		if err := c.end(m); err != nil {
			t.Fatal(err)
		}
		select {
		case <-m.Done():
		case <-ctx.Done():
			t.Fatal("the end was not noticed")
		}
		if err := m.Err(); (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKillByForce has a QEMU that cannot answer.
func TestKillByForce(t *testing.T) {
	e := newEngine(t, tcg)
	m := launchVM(t, e, spec(t, 1, small()))
	if err := unix.Kill(m.Pid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := m.Kill(within(t, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 150*time.Millisecond || d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	<-m.Done()
}

// TestAdopt lets go of a machine and takes it over, as the next daemon would.
func TestAdopt(t *testing.T) {
	ctx := within(t, time.Minute)
	e := newEngine(t, tcg)
	c := small()
	c.Disks = []vm.DiskConfig{{Path: newImage(t, "img", "raw", "1M")}}
	s := spec(t, 1, c)
	made, err := e.Launch(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	pid := made.Pid()
	defer func() { // it stays our child
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	if err := made.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := made.Close(); err != nil {
		t.Fatal(err)
	}
	next := *s
	next.Config = small()
	next.Config.Disks = []vm.DiskConfig{{Path: c.Disks[0].Path}}
	if _, err := e.Adopt(ctx, &next, os.Getpid()); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "find QEMU: process") {
		t.Errorf("adopted another process: %v", err)
	}
	again, err := e.Adopt(ctx, &next, pid)
	if err != nil {
		t.Fatal(err)
	}
	m := again.(*Machine)
	if got := status(t, m); got != "running" || next.Config.Disks[0].SnapshotPath != c.Disks[0].SnapshotPath {
		t.Errorf("adopted: %s, %+v", got, next.Config.Disks)
	}
	checkVNC(t, m)
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := errors.Join(m.Err(), m.Close()); err != nil {
		t.Error(err)
	}
	if _, err := e.Adopt(ctx, &next, pid); !errors.Is(err, errs.NotFound) {
		t.Errorf("adopted the dead: %v", err)
	}
}

func TestDisks(t *testing.T) {
	e := newEngine(t, tcg)
	c := small()
	for i, iface := range []string{"", "virtio", "ahci", "scsi"} {
		format := []string{"qcow2", "raw"}[i%2]
		c.Disks = append(c.Disks, vm.DiskConfig{Path: newImage(t, "a,b"+strconv.Itoa(i), format, "1M"), Interface: iface})
	}
	c.Machine = "pc"
	if err := e.Check(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s := spec(t, 3, c)
	m := launchVM(t, e, s)
	raw, err := m.QMP(t.Context(), json.RawMessage(`{"execute": "query-block"}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range c.Disks {
		if d.SnapshotPath != filepath.Join(s.Dir, fmt.Sprintf("disk-%d.qcow2", i)) || !strings.Contains(string(raw), `"file": "`+d.SnapshotPath+`"`) {
			t.Errorf("disk %d has overlay %q", i, d.SnapshotPath)
		}
	}
	busy := small()
	busy.Snapshot, busy.Disks = false, []vm.DiskConfig{{Path: c.Disks[0].Path}}
	if err := e.Check(t.Context(), busy); !errors.Is(err, errs.State) {
		t.Errorf("writing to what a VM reads: %v", err)
	}
}

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
			e := newEngine(t, c.opts)
			s := spec(t, 1, small())
			before := instance(t, s)
			c.set(t, s)
			if name == "full disk" {
				before = "ballast"
			}
			start := time.Now()
			_, err := e.Launch(within(t, 20*time.Second), s)
			if err == nil || !strings.HasPrefix(err.Error(), "VM "+s.Name+": "+c.want) || !errors.Is(err, c.kind) {
				t.Errorf("got %v (%s)\nwant %s (%s)", err, errs.KindOf(err), c.want, c.kind)
			}
			if d := time.Since(start); d > 10*time.Second {
				t.Errorf("failed after %v", d)
			}
			if left := instance(t, s); left != before {
				t.Errorf("left behind: %s", left)
			}
			if n := running(t, s); n != 0 {
				t.Errorf("%d processes left", n)
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

// TestManyAtOnce launches VMs side by side, compares the time with starting
// the same QEMUs by hand, and kills them.
func TestManyAtOnce(t *testing.T) {
	const n = 50
	e := newEngine(t, tcg)
	bare := bareLoop(t, e, n)
	specs := make([]*vm.Spec, n)
	for i := range specs {
		specs[i] = spec(t, 100+i, small())
	}
	machines := make([]vm.Machine, n)
	start := time.Now()
	parallel(n, func(i int) {
		m, err := e.Launch(within(t, time.Minute), specs[i])
		if err != nil {
			t.Error(err)
			return
		}
		machines[i] = m
	})
	launched := time.Since(start)
	start = time.Now()
	parallel(n, func(i int) {
		if m := machines[i]; m != nil {
			if err := errors.Join(m.Kill(within(t, 20*time.Second)), m.Err(), m.Close()); err != nil {
				t.Error(err)
			}
		}
	})
	t.Logf("%d VMs: bare QEMU %v, launched %v (%.2f), killed %v", n, bare, launched, float64(launched)/float64(bare), time.Since(start))
	// The target is 1.3; a loaded machine is given room.
	if launched > 2*bare+2*time.Second {
		t.Errorf("launching takes %v, the same QEMUs by hand %v", launched, bare)
	}
}

// parallel runs do for 0…n-1, eight at a time.
func parallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			do(i)
			<-slots
		})
	}
	wg.Wait()
}

// bareLoop starts the same command lines and waits for each to answer.
func bareLoop(t *testing.T, e *Engine, n int) time.Duration {
	cmds := make([]*exec.Cmd, n)
	dirs := make([]string, n)
	for i := range cmds {
		s := spec(t, 100+i, small())
		list, _, err := e.Arguments(t.Context(), s.ID, s.Dir, s.Config)
		if err != nil {
			t.Fatal(err)
		}
		dirs[i], cmds[i] = s.Dir, exec.Command("qemu-system-x86_64", list...)
		// Own sessions, as ours have: the scheduler shares out by session.
		cmds[i].SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	defer parallel(n, func(i int) {
		_ = cmds[i].Process.Kill()
		_ = cmds[i].Wait()
	})
	start := time.Now()
	parallel(n, func(i int) {
		if err := cmds[i].Start(); err != nil {
			t.Error(err)
			return
		}
		sock := filepath.Join(dirs[i], "qmp")
		for {
			conn, err := net.Dial("unix", sock)
			if err != nil {
				if pause(t.Context(), 2*time.Millisecond, nil) != nil {
					return
				}
				continue
			}
			_, _ = conn.Read(make([]byte, 10)) // the greeting: all is made
			_ = conn.Close()
			return
		}
	})
	return time.Since(start)
}
