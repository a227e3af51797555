package kvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
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
	raw, err := m.QMP(within(t, time.Minute), json.RawMessage(`{"execute": "query-status"}`))
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
	ctx := within(t, time.Minute)
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
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 12)
	if _, err := conn.Read(b); err != nil || string(b) != "RFB 003.008\n" {
		t.Errorf("VNC greeting %q, %v", b, err)
	}
}

func TestGuestEnds(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
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
	hosttest.Freeze(t, m.Pid())
	start := time.Now()
	if err := m.Kill(within(t, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 150*time.Millisecond || d > time.Minute {
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
