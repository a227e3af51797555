package container

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

func TestShow(t *testing.T) {
	b := newBench(t)
	shown := b.succeeds(b.config("show"))
	for _, want := range []string{"hostname: box0 pid: 1 env: 0 uid: 0", "link: lo  up", "cwd: /"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in %s", want, shown)
		}
	}
}

func TestSnapshot(t *testing.T) {
	b := newBench(t)
	b.succeeds(b.config("write", "/tmp/file", "in the snapshot"))
	if _, err := os.Stat(filepath.Join(b.root, "tmp/file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file system was written to: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(b.base, "0/fs/tmp/file")); string(text) != "in the snapshot" {
		t.Errorf("%q %v", text, err)
	}
	c := b.config("write", "/tmp/file", "in place")
	c.Snapshot = false
	b.succeeds(c)
	if text, err := os.ReadFile(filepath.Join(b.root, "tmp/file")); string(text) != "in place" {
		t.Errorf("%q %v", text, err)
	}
}

func TestVolumes(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.base, "one,file:x")
	if err := os.WriteFile(file, []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := b.config("write", "/a/b/c/file", "x")
	c.VolumePaths = map[string]string{"/a/b": filepath.Join(b.base, "outer"), "a/b/c": filepath.Join(b.base, "inner"), "/etc/conf": file}
	b.succeeds(c)
	if text, err := os.ReadFile(filepath.Join(b.base, "inner/file")); string(text) != "x" {
		t.Errorf("%q %v", text, err)
	}
	c = b.config("read", "/etc/conf", "a file")
	c.VolumePaths = map[string]string{"/etc/conf": file}
	b.succeeds(c)
}

func TestFifos(t *testing.T) {
	b := newBench(t)
	c := b.config("fifo")
	c.Fifos = 2
	m := b.start(c)
	if err := os.WriteFile(filepath.Join(m.spec.Dir, "fifo0"), []byte("through"), 0); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(m.spec.Dir, "fifo1")); string(text) != "through" {
		t.Errorf("%q %v", text, err)
	}
	if code, shown := b.wait(m); code != 0 {
		t.Error(shown)
	}
	if st, err := os.Stat(filepath.Join(m.spec.Dir, "fifo0")); err != nil || st.Mode() != os.ModeNamedPipe|0o640 && st.Mode() != os.ModeNamedPipe|0o660 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestUUIDFile(t *testing.T) {
	b := newBench(t)
	b.launch(b.config("sleep"))
	text, err := os.ReadFile(filepath.Join(b.base, "0/uuid"))
	st, err2 := os.Stat(filepath.Join(b.base, "0/uuid"))
	if err := errors.Join(err, err2); err != nil || string(text) != "11111111-2222-3333-4444-555555555555\n" || st.Mode() != 0o400 {
		t.Errorf("%q %v %v", text, st.Mode(), err)
	}
}

func TestStopAndStart(t *testing.T) {
	b := newBench(t)
	m := b.launch(b.config("count"))
	state := func(want vm.State) {
		t.Helper()
		if got, err := m.Status(t.Context()); got != want || err != nil {
			t.Errorf("%v %v, want %v", got, err, want)
		}
	}
	state(vm.Building)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	state(vm.Running)
	until(t, "tick 3", func() bool { return strings.Contains(m.shown(), "tick 3") })
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	state(vm.Paused)
	before := ""
	until(t, "standstill", func() bool { // once what it wrote before has arrived
		before = m.shown()
		time.Sleep(100 * time.Millisecond)
		return m.shown() == before
	})
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "more", func() bool { return m.shown() != before })
}

// A start that took too long can be tried again.
func TestStartLate(t *testing.T) {
	defer func(d time.Duration) { startTime = d }(startTime)
	startTime = 200 * time.Millisecond
	b := newBench(t)
	m := b.launch(b.config("count"))
	hosttest.Freeze(t, m.init.pid)
	for range 2 {
		if err := m.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "try `vm start` again") {
			t.Fatalf("start of a process that stands still: %v", err)
		}
	}
	if got, err := m.Status(t.Context()); got != vm.Building || err != nil {
		t.Errorf("meanwhile it is %v %v", got, err)
	}
	if err := unix.Kill(m.init.pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	startTime = time.Minute
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "tick 3", func() bool { return strings.Contains(m.shown(), "tick 3") })
	if got, err := m.Status(t.Context()); got != vm.Running || err != nil {
		t.Errorf("then it is %v %v", got, err)
	}
}

func TestKillPaused(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("count"))
	if err := errors.Join(m.Stop(t.Context()), m.Kill(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := m.Err(); err != nil {
		t.Errorf("killed, and yet: %v", err)
	}
	for _, call := range []func(context.Context) error{m.Start, m.Stop} {
		if err := call(t.Context()); !errors.Is(err, errs.State) {
			t.Errorf("on an ended container: %v", err)
		}
	}
}

func TestEnds(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("exit", "3"))
	if code, _ := b.wait(m); code != 3 || m.Err() != nil {
		t.Errorf("%d %v", code, m.Err())
	}
	m = b.start(b.config("sleep"))
	if err := unix.Kill(m.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := m.Err(); !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("killed by another: %v", err)
	}
	m = b.start(b.config("sleep"))
	if err := unix.Kill(m.keeper.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "keeper") {
		t.Errorf("its keeper was killed: %v", err)
	}
}

func TestConsole(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("echo"))
	until(t, "ready", func() bool { return strings.Contains(m.shown(), "ready") })
	for _, network := range []string{"unix", "tcp"} {
		c := dialConsole(t, m, network)
		r := bufio.NewReader(c)
		if line, err := r.ReadString('\n'); line != "ready\r\n" && network == "unix" || err != nil {
			t.Fatalf("%s: scrollback %q %v", network, line, err)
		}
		fmt.Fprintf(c, "by %s\n", network)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", network, err)
			}
			if line == "by "+network+"\r\n" {
				break
			}
		}
	}
}

func TestScrollback(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("count"))
	until(t, "a screen", func() bool { return len(m.shown()) == scrollback })
	c := dialConsole(t, m, "unix")
	got := make([]byte, scrollback)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(got), "\ntick ") {
		t.Errorf("%q", got)
	}
}

// A client that reads nothing is let go and keeps nobody waiting.
func TestSlowClient(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("echo"))
	slow := dialConsole(t, m, "unix")
	until(t, "the client", func() bool { m.console.mu.Lock(); defer m.console.mu.Unlock(); return len(m.console.clients) == 1 })
	fast := dialConsole(t, m, "tcp")
	go func() { _, _ = io.Copy(io.Discard, fast) }()
	line := strings.Repeat("x", 1000) + "\n"
	until(t, "the end of the slow client", func() bool {
		_, _ = io.WriteString(fast, line)
		m.console.mu.Lock()
		defer m.console.mu.Unlock()
		return len(m.console.clients) == 1
	})
	_ = slow
}

func TestAdopt(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, *Machine) vm.State{
		"Building": func(*testing.T, *Machine) vm.State { return vm.Building },
		"Running": func(t *testing.T, m *Machine) vm.State {
			if err := m.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			until(t, "ready", func() bool { return strings.Contains(m.shown(), "ready") })
			return vm.Running
		},
		"Paused": func(t *testing.T, m *Machine) vm.State {
			if err := errors.Join(m.Start(t.Context()), m.Stop(t.Context())); err != nil {
				t.Fatal(err)
			}
			return vm.Paused
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			s := b.spec(b.config("echo"))
			first, err := b.engine.Launch(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			m := first.(*Machine)
			state := prepare(t, m)
			keeper, pid := m.keeper.pid, m.Pid()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			second := New(Options{Base: b.base}, b.engine.log)
			t.Cleanup(func() {
				if err := second.Close(); err != nil {
					t.Error(err)
				}
			})
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", keeper))
			if dir := second.Instance(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")); err != nil || dir != s.Dir {
				t.Fatalf("instance %q %v", dir, err)
			}
			given := keeper
			if state == vm.Building { // its init looks like a keeper
				given = pid
			}
			again, err := second.Adopt(t.Context(), s, given)
			if err != nil {
				t.Fatal(err)
			}
			b.endAfter(again)
			m = again.(*Machine)
			if got, err := m.Status(t.Context()); got != state || m.Pid() != pid || err != nil {
				t.Fatalf("%v %v, pid %d, want %v %d", got, err, m.Pid(), state, pid)
			}
			if state == vm.Building { // stopped at once it is paused, and does not wait for its start again
				if err := errors.Join(m.Start(t.Context()), m.Stop(t.Context())); err != nil {
					t.Fatal(err)
				}
				if got, err := m.Status(t.Context()); got != vm.Paused || err != nil {
					t.Errorf("started and stopped: %v %v", got, err)
				}
			}
			if state != vm.Running {
				if err := m.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c := dialConsole(t, m, "unix")
			fmt.Fprintln(c, "still here")
			until(t, "the echo", func() bool { return strings.Count(m.shown(), "still here") > 1 })
			if err := m.Kill(t.Context()); err != nil || m.Err() != nil {
				t.Errorf("%v %v", err, m.Err())
			}
		})
	}
}

func TestAdoptAnother(t *testing.T) {
	b := newBench(t)
	if _, err := b.engine.Adopt(t.Context(), b.spec(b.config("sleep")), os.Getpid()); !errors.Is(err, errs.NotFound) {
		t.Errorf("adopted ourselves: %v", err)
	}
}

// Clean ends a container whose keeper is gone, and one that is frozen.
func TestClean(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("count"))
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.engine.Clean(t.Context(), m.spec.Dir); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := b.engine.Clean(t.Context(), m.spec.Dir); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// Many at once, and what they leave.
func TestMany(t *testing.T) {
	b := newBench(t)
	var machines []*Machine
	for range 30 {
		machines = append(machines, b.start(b.config("sleep")))
	}
	for _, m := range machines {
		if err := m.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
