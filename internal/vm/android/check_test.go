package android

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t, "", Options{})
	t.Setenv("PATH", t.TempDir())
	write(t, filepath.Join(w.AVDs(), "empty.ini"), "target=x\n", 0o644)
	write(t, filepath.Join(w.AVDs(), "huge.ini"), strings.Repeat("x=y\n", 20000), 0o644)
	write(t, filepath.Join(w.AVDs(), "moved.ini"), "path=/nonexistent\npath.rel=avd/phone.avd\n", 0o644)
	write(t, filepath.Join(w.AVDs(), "gone.ini"), "path=/nonexistent\npath.rel=avd/gone.avd\n", 0o644)
	text := filepath.Join(t.TempDir(), "text")
	write(t, text, "hello", 0o644)
	for name, c := range map[string]struct {
		set  func(*vm.Config)
		kind errs.Kind
		want string
	}{
		"good":        {func(*vm.Config) {}, "", ""},
		"all":         {func(c *vm.Config) { c.ADBPath, c.ConsoleBasePort, c.WritableSystem = w.Emulator(), 5680, true }, "", ""},
		"moved":       {func(c *vm.Config) { c.AVDName = "moved" }, "", ""},
		"by path":     {func(c *vm.Config) { c.SDKPath, c.EmulatorPath = "", w.Emulator() }, "", ""},
		"directory":   {func(c *vm.Config) { c.AVDDir = w.AVDs() }, "", ""},
		"networks":    {func(c *vm.Config) { c.Networks = []vm.NetConfig{{VLAN: 1}} }, errs.Unsupported, "android VM networking is not supported yet"},
		"vcpus":       {func(c *vm.Config) { c.VCPUs = 0 }, errs.Invalid, "at least one vcpu"},
		"memory":      {func(c *vm.Config) { c.Memory = 0 }, errs.Invalid, "at least 1 MB"},
		"too much":    {func(c *vm.Config) { c.Memory = 1 << 40 }, errs.Resource, "does not fit"},
		"no emulator": {func(c *vm.Config) { c.SDKPath = "" }, errs.NotFound, "Android emulator not found: there is no emulator, in $PATH"},
		"no SDK":      {func(c *vm.Config) { c.SDKPath = "/nonexistent" }, errs.NotFound, "no /nonexistent/emulator/emulator, in the SDK"},
		"not there":   {func(c *vm.Config) { c.EmulatorPath = "/nonexistent/e" }, errs.NotFound, "no /nonexistent/e, as `vm config"},
		"no program":  {func(c *vm.Config) { c.EmulatorPath = text }, errs.Permission, "cannot be run"},
		"no adb":      {func(c *vm.Config) { c.ADBPath = "/nonexistent/adb" }, errs.NotFound, "adb cannot be run"},
		"no AVD":      {func(c *vm.Config) { c.AVDName = "" }, errs.Invalid, "no Android virtual device"},
		"path":        {func(c *vm.Config) { c.AVDName = "../phone" }, errs.Invalid, "invalid AVD name"},
		"option":      {func(c *vm.Config) { c.AVDName = "-wipe-data" }, errs.Invalid, "invalid AVD name"},
		"other AVD":   {func(c *vm.Config) { c.AVDName = "watch" }, errs.NotFound, "there is no Android virtual device watch in " + w.AVDs()},
		"elsewhere":   {func(c *vm.Config) { c.AVDDir = "/nonexistent" }, errs.NotFound, "there is no Android virtual device phone in /nonexistent"},
		"empty":       {func(c *vm.Config) { c.AVDName = "empty" }, errs.NotFound, "has no config.ini"},
		"gone":        {func(c *vm.Config) { c.AVDName = "gone" }, errs.NotFound, "has no config.ini in /nonexistent"},
		"huge":        {func(c *vm.Config) { c.AVDName = "huge" }, errs.NotFound, "is no file of settings"},
		"odd port":    {func(c *vm.Config) { c.ConsoleBasePort = 5555 }, errs.Invalid, "5555 is not 0 or an even number"},
		"high port":   {func(c *vm.Config) { c.ConsoleBasePort = 5682 }, errs.Invalid, "5682 is not 0 or an even number"},
		"our option":  {func(c *vm.Config) { c.ExtraArgs = []string{"-gpu", "off", "-port", "1"} }, errs.Invalid, "minimega sets -port itself"},
		"our device":  {func(c *vm.Config) { c.ExtraArgs = []string{"@other"} }, errs.Invalid, "minimega sets @other itself"},
	} {
		cfg := w.config.Clone()
		c.set(cfg)
		err := w.Check(t.Context(), cfg)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v (%s), want %s (%s)", name, err, errs.KindOf(err), c.want, c.kind)
		}
	}
}

// The emulator is found in $PATH, and its devices where the environment says.
func TestEnvironment(t *testing.T) {
	w := newWorld(t, "", Options{})
	c := w.config.Clone()
	c.SDKPath = ""
	t.Setenv("PATH", filepath.Dir(w.Emulator()))
	for name, value := range map[string]string{"ANDROID_AVD_HOME": w.AVDs(), "ANDROID_USER_HOME": filepath.Dir(w.AVDs())} {
		t.Setenv(name, value)
		e := New(Options{Home: t.TempDir()})
		if err := e.Check(t.Context(), c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Setenv(name, "")
	}
	tools := t.TempDir()
	write(t, filepath.Join(tools, "adb"), "", 0o755)
	c.SDKPath, c.ADBPath, c.AVDDir = "/sdk", filepath.Join(tools, "adb"), "/avds"
	t.Setenv("HOME", "/elsewhere")
	env, err := New(Options{Home: "/h"}).environment(c)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		if _, twice := got[k]; twice {
			t.Errorf("%s comes twice", k)
		}
		got[k] = v
	}
	for k, want := range map[string]string{"HOME": "/h", "ANDROID_HOME": "/sdk", "ANDROID_SDK_ROOT": "/sdk", "ANDROID_AVD_HOME": "/avds",
		"PATH": tools + ":" + filepath.Dir(w.Emulator())} {
		if got[k] != want {
			t.Errorf("%s=%s, want %s", k, got[k], want)
		}
	}
}

// alone runs a test in a network namespace of its own, whose ports are free.
func alone(t *testing.T, test func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			test()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Ports that somebody uses, or that another engine is about to use, are passed
// over.
func TestPorts(t *testing.T) {
	alone(t, func() {
		busy, err := net.Listen("tcp", "0.0.0.0:5663") // adb's of 5662
		if err != nil {
			t.Error(err)
			return
		}
		defer busy.Close()
		var held []*claim
		for _, want := range []int{5660, 5664, 5666, 5666} {
			c, err := claimPorts(5660)
			if err != nil || c.port != want {
				t.Errorf("%+v, %v, want port %d", c, err, want)
				continue
			}
			if held = append(held, c); want == 5666 {
				c.release()
			}
		}
		for _, c := range held {
			c.release()
		}
	})
}

// A host has 64 emulators, and no more.
func TestAllPorts(t *testing.T) {
	alone(t, func() {
		var held []*claim
		c, err := claimPorts(0)
		for ; err == nil; c, err = claimPorts(0) {
			held = append(held, c)
			defer c.release()
		}
		if len(held) != 64 || !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), "all 64 pairs of Android ports, 5554 to 5681, are taken") {
			t.Errorf("%d claimed, then %v", len(held), err)
		}
		if _, err := claimPorts(5680); err == nil || !strings.Contains(err.Error(), "from 5680 to 5681 is taken") {
			t.Errorf("the last pair: %v", err)
		}
	})
}

// Check says so before anything is made.
func TestCheckPorts(t *testing.T) {
	w := newWorld(t, "", Options{})
	alone(t, func() {
		busy, err := net.Listen("tcp", "0.0.0.0:5681")
		if err != nil {
			t.Error(err)
			return
		}
		defer busy.Close()
		w.config.ConsoleBasePort = 5680
		if err := w.Check(t.Context(), w.config); !errors.Is(err, errs.Resource) {
			t.Errorf("no port: %v", err)
		}
		w.config.ConsoleBasePort = 5678
		if err := w.Check(t.Context(), w.config); err != nil {
			t.Error(err)
		}
	})
}

func FuzzListening(f *testing.F) {
	f.Add([]byte("  sl  local_address rem_address   st\n   0: 0100007F:15B2 00000000:0000 0A 00000000:00000000\n   1: 0100007F:15B4 00000000:0000 01\n"))
	f.Add([]byte("0: 00000000000000000000000000000000:FFFF 0 0A\n0: :10000 0 0A\n0:  x 0A"))
	f.Fuzz(func(t *testing.T, table []byte) {
		ports := map[int]bool{}
		addListening(ports, table)
		for p := range ports {
			if p < 0 || p > 65535 {
				t.Errorf("port %d", p)
			}
		}
	})
}

func TestListening(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if got, err := listening(); err != nil || !got[port] {
		t.Errorf("%d is not among %v, %v", port, got, err)
	}
	l.Close()
	if got, err := listening(); err != nil || got[port] {
		t.Errorf("closed, %d is among %v, %v", port, got, err)
	}
}

func FuzzINI(f *testing.F) {
	f.Add("avd.ini.encoding=UTF-8\r\npath = /x\n=\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		for k, v := range parseINI(text) {
			if strings.ContainsAny(k+v, "\n") || strings.Contains(k, "=") {
				t.Errorf("%q = %q", k, v)
			}
		}
	})
}
