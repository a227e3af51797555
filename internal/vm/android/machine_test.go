package android

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

// left lists what is in an instance directory.
func left(t *testing.T, s *vm.Spec) string {
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

func script(text string) func(*testing.T, *vm.Spec) {
	return func(t *testing.T, s *vm.Spec) {
		s.Config.EmulatorPath = filepath.Join(t.TempDir(), "emulator")
		write(t, s.Config.EmulatorPath, "#!/bin/sh\n"+text+"\n", 0o700)
	}
}

// TestFailedLaunch fails each step in turn, and expects a clean machine.
func TestFailedLaunch(t *testing.T) {
	short := Options{StartTimeout: 400 * time.Millisecond}
	for name, c := range map[string]struct {
		behaviour string
		opts      Options
		set       func(*testing.T, *vm.Spec)
		want      string
		kind      errs.Kind
	}{
		"ports": {"", Options{}, allTaken, "reserve ports: every pair of Android ports from 5680 to 5681 is taken", errs.Resource},
		"no emulator": {"", Options{}, func(_ *testing.T, s *vm.Spec) { s.Config.EmulatorPath = "no-such-emulator" },
			"start emulator: Android emulator not found: ", errs.NotFound},
		"QEMU arguments": {"", Options{}, func(_ *testing.T, s *vm.Spec) { s.Config.QemuPath = "bad" }, "start emulator: no arguments for bad", errs.NotFound},
		"not a program": {"", Options{}, func(t *testing.T, s *vm.Spec) {
			script("")(t, s)
			write(t, s.Config.EmulatorPath, "\x7fELF", 0o700)
		}, "start emulator: start /", errs.Internal},
		"bad option": {"", Options{}, func(_ *testing.T, s *vm.Spec) { s.Config.ExtraArgs = []string{"-bogus"} },
			"start emulator: the emulator ended: exit status 1: unknown option: -bogus; please use -help", errs.State},
		"other AVD": {"", Options{}, func(_ *testing.T, s *vm.Spec) { s.Config.AVDName = "watch" },
			"start emulator: the emulator ended: exit status 1: PANIC: Unknown AVD name [watch]", errs.State},
		"ends": {"exit", Options{}, nil,
			"start emulator: the emulator ended: exit status 1: ERROR        | Your device does not have enough disk space", errs.State},
		"ends without a word": {"", Options{}, script("exit 3"), "start emulator: the emulator ended: exit status 3, without a word", errs.State},
		"ends late":           {"exit-late", Options{}, nil, "start emulator: the emulator ended: exit status 1: FATAL", errs.State},
		"silent": {"", short, script("echo warming up; kill -STOP $$"),
			"connect to QMP: the emulator's control socket does not answer: context deadline exceeded; it says: warming up", errs.Unreachable},
		"no control socket": {"no-qmp", short, nil, "connect to QMP: the emulator's control socket does not answer: context deadline exceeded", errs.Unreachable},
		"no console":        {"no-console", short, nil, "connect to console: the emulator's console does not answer: context deadline exceeded", errs.Unreachable},
		"mute console":      {"mute", short, nil, "connect to console: the emulator's console does not answer: context deadline exceeded", errs.Unreachable},
		"endless console":   {"garbage", Options{}, nil, "connect to console: console command avd name: greeting: unexpected EOF", errs.Unreachable},
		"another device":    {"other-name", Options{}, nil, `connect to console: the console on port 55`, errs.State},
		"another token": {"other-token", Options{}, nil,
			"connect to console: authentication: the emulator says: authentication token does not match", errs.Permission},
	} {
		t.Run(name, func(t *testing.T) {
			for {
				w := newWorld(t, c.behaviour, c.opts)
				s := w.spec(t)
				write(t, filepath.Join(s.Dir, "config"), "not ours", 0o600)
				if c.set != nil {
					c.set(t, s)
				}
				_, err := w.Launch(within(t, time.Minute), s)
				if l := left(t, s); l != "config" {
					t.Errorf("left behind: %s", l)
				}
				// No process either: newWorld sees to that.
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

// allTaken claims the last pair of ports, the only one that is allowed.
func allTaken(t *testing.T, s *vm.Spec) {
	s.Config.ConsoleBasePort = lastPort
	c, err := claimPort(lastPort)
	if errors.Is(err, unix.EADDRINUSE) {
		return // this test runs twice at once
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.release)
}

// TestCommandLine reads what the emulator was really started with.
func TestCommandLine(t *testing.T) {
	w := newWorld(t, "", Options{})
	w.config.ConsoleBasePort, w.config.QemuAppend = 5600, []string{"-no-reboot"}
	s, m := w.launch(t)
	console, adb := m.Ports()
	if console < 5600 || console%2 != 0 || adb != console+1 {
		t.Errorf("ports %d and %d", console, adb)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	want := []string{w.Emulator(), "-avd", "phone", "-port", itoa(console), "-stdouterr-file", filepath.Join(s.Dir, "android-emulator.log"),
		"-no-window", "-read-only", "-qemu", "-name", "7"}
	if len(args) < len(want) || !slices.Equal(args[:len(want)], want) {
		t.Errorf("command line %q\nwant %q", args, want)
	}
	for _, a := range []string{"-m", "64", "-S", "-no-reboot", "unix:" + s.Dir + "/qmp,server=on", s.Dir + "/qemu.pid"} {
		if !slices.Contains(args, a) {
			t.Errorf("%s is missing in %q", a, args)
		}
	}
	for _, a := range []string{"-vnc", "-vga"} {
		if slices.Contains(args, a) {
			t.Errorf("%s is not wanted in %q", a, args)
		}
	}
	if b, err := os.ReadFile(filepath.Join(s.Dir, logName)); err != nil || !strings.Contains(string(b), "Android emulator version") {
		t.Errorf("log %q, %v", b, err)
	}
}

// TestPaused: an emulator that runs at once is stopped before anybody sees it.
func TestPaused(t *testing.T) {
	w := newWorld(t, "runs", Options{})
	_, m := w.launch(t)
	if s, err := m.Status(within(t, time.Minute)); err != nil || s != vm.Paused {
		t.Errorf("state %v, %v", s, err)
	}
}

// TestToken: the console without a token, and with one that is not ours to read.
func TestToken(t *testing.T) {
	w := newWorld(t, "no-token", Options{})
	_, m := w.launch(t)
	if err := m.Start(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	w = newWorld(t, "", Options{})
	_, m = w.launch(t)
	for text, want := range map[string]string{"": "holds no token", "a b": "holds no token", "wrong": "does not match"} {
		write(t, filepath.Join(w.Home, tokenName), text, 0o600)
		if err := m.Start(within(t, time.Minute)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("token %q: %v, want %s", text, err, want)
		}
	}
	if err := os.Remove(filepath.Join(w.Home, tokenName)); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(within(t, time.Minute)); err == nil || !strings.Contains(err.Error(), "start minimega with the HOME") {
		t.Errorf("no token: %v", err)
	}
	// Without the console, the process is ended all the same.
	if err := m.Kill(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t, "refuses", Options{})
	_, m := w.launch(t)
	if err := m.Start(within(t, time.Minute)); !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "the emulator says: out of battery") {
		t.Errorf("got %v (%s)", err, errs.KindOf(err))
	}
	if err := m.Stop(within(t, time.Minute)); err != nil { // stopped already
		t.Error(err)
	}
}

// TestKillByForce has emulators that do not end, or cannot answer.
func TestKillByForce(t *testing.T) {
	for _, behaviour := range []string{"stubborn", ""} {
		w := newWorld(t, behaviour, Options{})
		_, m := w.launch(t)
		if behaviour == "" {
			hosttest.Freeze(t, m.Pid())
		}
		start := time.Now()
		if err := m.Kill(within(t, 200*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 150*time.Millisecond || d > time.Minute {
			t.Errorf("%q: took %v", behaviour, d)
		}
		<-m.Done()
		if err := m.Err(); err != nil {
			t.Error(err)
		}
	}
}

// TestLastWords: an emulator that dies says why.
func TestLastWords(t *testing.T) {
	w := newWorld(t, "", Options{})
	s, m := w.launch(t)
	write(t, filepath.Join(s.Dir, logName), "INFO         | booting\nERROR        | \x1b[31mGPU is on fire\n", 0o600)
	if err := unix.Kill(m.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	want := "the emulator ended: killed by signal 9 (killed): ERROR        |  [31mGPU is on fire"
	if err := m.Err(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestADB shakes hands with the port that adb would use.
func TestADB(t *testing.T) {
	w := newWorld(t, "", Options{})
	_, m := w.launch(t)
	if err := m.Start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, port := m.Ports()
	conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	const connect = 0x4e584e43
	if err := binary.Write(conn, binary.LittleEndian, [6]uint32{connect, 0x01000000, 4096, 0, 0, connect ^ 0xffffffff}); err != nil {
		t.Fatal(err)
	}
	var head [6]uint32
	if err := binary.Read(conn, binary.LittleEndian, &head); err != nil || head[0] != connect || head[3] > 4096 {
		t.Fatalf("%x, %v", head, err)
	}
	banner := make([]byte, head[3])
	if _, err := io.ReadFull(conn, banner); err != nil || !strings.HasPrefix(string(banner), "device::") {
		t.Errorf("%q, %v", banner, err)
	}
}

// TestMany launches several at once: none takes the ports of another.
func TestMany(t *testing.T) {
	const n = 6
	w := newWorld(t, "", Options{})
	type result struct {
		m   vm.Machine
		err error
	}
	results := make(chan result)
	for range n {
		s := w.spec(t)
		go func() {
			m, err := w.Launch(within(t, time.Minute), s)
			results <- result{m, err}
		}()
	}
	ports := map[int]bool{}
	for range n {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		console, _ := r.m.(*Machine).Ports()
		ports[console] = true
		defer func() {
			if err := errors.Join(r.m.Kill(within(t, time.Minute)), r.m.Close()); err != nil {
				t.Error(err)
			}
		}()
	}
	if len(ports) != n {
		t.Errorf("%d machines on ports %v", n, ports)
	}
}
