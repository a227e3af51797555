package record

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// starters are the two ways to record.
var starters = map[string]func(*Manager, context.Context, Target, string) error{
	"kb": (*Manager).RecordKB, "fb": (*Manager).RecordFB,
}

func TestRecordBadFiles(t *testing.T) {
	vm := newMachine(t, "bad", 10, 10)
	m := newManager(t)
	dir := t.TempDir()
	fifo, link, dev := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), "/dev/null"
	target := filepath.Join(dir, "target")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.Symlink(target, link), os.WriteFile(target, []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for kind, start := range starters {
		for path, want := range map[string]errs.Kind{
			filepath.Join(dir, "no", "x"): errs.NotFound, dir: errs.Invalid, fifo: errs.Invalid, link: errs.Invalid, dev: errs.Invalid,
			"/proc/no-such-file": errs.Invalid, filepath.Join(target, "x"): errs.Invalid,
		} {
			err := start(m, t.Context(), vm.Target, path)
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s to %s: %v", kind, path, err)
			}
			if !errors.Is(err, want) {
				t.Errorf("%s to %s is %q: %v", kind, path, errs.KindOf(err), err)
			}
		}
	}
	if data, _ := os.ReadFile(target); string(data) != "old" || len(m.List()) != 0 {
		t.Errorf("changed: %q, %v", data, m.List())
	}
}

func TestRecordWithoutScreen(t *testing.T) {
	m := newManager(t)
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	dead := Target{ID: 1, Name: "dead", Namespace: "ns", Proxy: newProxy(t, filepath.Join(dir, "nothing"))}
	for _, path := range []string{old, filepath.Join(dir, "new")} {
		if err := m.RecordFB(t.Context(), dead, path); !errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), "dead") {
			t.Errorf("fb of a dead screen: %v", err)
		}
		for kind, start := range starters {
			if err := start(m, t.Context(), Target{Name: "off"}, path); !errors.Is(err, errs.State) {
				t.Errorf("%s without a screen: %v", kind, err)
			}
		}
	}
	if data, _ := os.ReadFile(old); string(data) != "old" {
		t.Errorf("old file now holds %q", data)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !os.IsNotExist(err) {
		t.Errorf("a file stayed: %v", err)
	}
	if err := m.Type(t.Context(), dead, "x"); !errors.Is(err, errs.Unreachable) {
		t.Errorf("type: %v", err)
	}
}

func TestOneFileOneRecording(t *testing.T) {
	a, b := newMachine(t, "a", 10, 10), newMachine(t, "b", 10, 10)
	m := newManager(t)
	dir := t.TempDir()
	alias := filepath.Join(t.TempDir(), "alias")
	if err := errors.Join(os.Symlink(dir, alias), m.RecordKB(t.Context(), a.Target, dir+"/x")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir + "/x": "by the record kb of a", alias + "/x": "by another recording"} {
		if err := m.RecordKB(t.Context(), b.Target, path); !errors.Is(err, errs.State) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := m.Stop("kb", "ns", "a"); err != nil {
		t.Fatal(err)
	}
	if err := m.RecordKB(t.Context(), b.Target, alias+"/x"); err != nil {
		t.Errorf("after the first was stopped: %v", err)
	}
}

func TestStopUnknown(t *testing.T) {
	m := newManager(t)
	for kind, want := range map[string]string{"kb": "kb recording x not found", "fb": "fb recording x not found", "zb": `"zb" is not a kind of recording: kb or fb`} {
		if err := m.Stop(kind, "ns", "x"); err == nil || err.Error() != want {
			t.Errorf("stop %s: %v", kind, err)
		}
	}
}

// TestFailedRecordingIsTold: a failure is kept until somebody stops the
// recording, and another can take its place.
func TestFailedRecordingIsTold(t *testing.T) {
	vm := newMachine(t, "full", 400, 400)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "full")
	boom := errors.New("disk is full")
	j := newJob(TypeKB, vm.Target, path, true)
	if err := m.begin(j, nil); err != nil {
		t.Fatal(err)
	}
	m.launch(j, func(context.Context) error { return boom })
	eventually(t, func() bool { return len(m.List()) == 0 })
	if err := m.RecordKB(t.Context(), vm.Target, path); err != nil {
		t.Errorf("a new recording: %v", err)
	}
	if err := m.Stop("kb", "ns", "full"); err != nil {
		t.Errorf("stop of the new one: %v", err)
	}
	again := newJob(TypeKB, vm.Target, path, true)
	if err := m.begin(again, nil); err != nil {
		t.Fatal(err)
	}
	m.launch(again, func(context.Context) error { return boom })
	<-again.done
	if err := m.Stop("kb", "ns", "full"); !errors.Is(err, boom) {
		t.Errorf("stop of a failed one: %v", err)
	}
}

// TestDiskFull records noise to a file system of 256 KiB.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("minimega-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	vm := newMachine(t, "nospace", 200, 200)
	m := newManager(t)
	if err := m.RecordFB(t.Context(), vm.Target, dir+"/x.fb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { vm.Screen.Draw(noise); return len(m.List()) == 0 })
	if err := m.Stop("fb", "ns", "nospace"); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir+"/x.fb") {
		t.Errorf("why it ended: %v", err)
	}
	f, err := os.Open(dir + "/x.fb")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if frame, err := r.Next(); err != nil || frame.Image.Rect.Dx() != 200 {
		t.Errorf("what was written cannot be read: %v", err)
	}
	if err := m.RecordKB(t.Context(), vm.Target, dir+"/x.kb"); err != nil {
		t.Fatal(err)
	}
	c := client(t, vm.Proxy)
	eventually(t, func() bool { _ = c.Key(vnc.KeyEvent{Down: true, Keysym: 'a'}); return len(m.List()) == 0 })
	if err := m.Stop("kb", "ns", "nospace"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("why kb ended: %v", err)
	}
}

func TestWriteErrorEndsRecording(t *testing.T) {
	vm := newMachine(t, "werr", 10, 10)
	m := newManager(t)
	j := newJob(TypeKB, vm.Target, filepath.Join(t.TempDir(), "x"), true)
	out, err := openOutput(j)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.begin(j, nil); err != nil {
		t.Fatal(err)
	}
	k := newKBRecorder(vm.Proxy, j, out, time.Now())
	_ = out.File.Close() // every write fails from now on
	m.launch(j, k.run)
	if err := client(t, vm.Proxy).Key(vnc.KeyEvent{Down: true, Keysym: 'a'}); err != nil {
		t.Fatal(err)
	}
	<-j.done
	if err := m.Stop("kb", "ns", "werr"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("stop: %v", err)
	}
}

func TestKBEndsWithProxy(t *testing.T) {
	vm := newMachine(t, "ends", 10, 10)
	m := newManager(t)
	if err := m.RecordKB(t.Context(), vm.Target, filepath.Join(t.TempDir(), "x")); err != nil {
		t.Fatal(err)
	}
	if err := vm.Proxy.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(m.List()) == 0 })
}

func TestCloseEndsEverything(t *testing.T) {
	m := New(quiet())
	vm := newMachine(t, "all", 10, 10)
	dir := t.TempDir()
	play := write(t, "1h:KeyEvent,true,a\n")
	typed := make(chan error, 1)
	err := errors.Join(
		m.RecordKB(t.Context(), vm.Target, dir+"/kb"),
		m.RecordFB(t.Context(), vm.Target, dir+"/fb"),
		m.Play(t.Context(), vm.Target, play),
	)
	go func() { typed <- m.Type(context.Background(), vm.Target, strings.Repeat("x", 10000)) }()
	eventually(t, func() bool { in, _ := vm.seen(); return len(in) > 10 })
	if err := errors.Join(err, m.Close(context.Background())); err != nil {
		t.Fatal(err)
	}
	if err := <-typed; err == nil {
		t.Error("typing was cut off without an error")
	}
	decode(t, dir+"/fb")
	if len(m.List()) != 0 || m.RecordKB(t.Context(), vm.Target, dir+"/kb") == nil {
		t.Error("something still runs, or starts")
	}
}

func TestStopAllOfNamespace(t *testing.T) {
	m := newManager(t)
	vm := newMachine(t, "one", 10, 10)
	other := vm.Target
	other.Namespace = "other"
	dir := t.TempDir()
	if err := errors.Join(m.RecordKB(t.Context(), vm.Target, dir+"/a"), m.RecordKB(t.Context(), other, dir+"/b"), m.StopAll("ns")); err != nil {
		t.Fatal(err)
	}
	if l := m.List(); len(l) != 1 || l[0].Namespace != "other" {
		t.Errorf("list %v", l)
	}
}

// TestStartOfSilentServer: a server that says nothing must not hold the caller
// longer than its patience, nor leave a file.
func TestStartOfSilentServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m := newManager(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	path := filepath.Join(t.TempDir(), "x")
	err = m.RecordFB(ctx, Target{Name: "mute", Proxy: newProxy(t, socket)}, path)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent server: %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("a file stayed", fmt.Sprint(err))
	}
}
