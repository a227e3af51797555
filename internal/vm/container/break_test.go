package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/vm"
)

// A hostile container gets nowhere: each action of the guest tries, and fails
// if it succeeds.
func TestIsolation(t *testing.T) {
	for name, with := range map[string]func(*bench) *vm.Config{
		"Processes": func(b *bench) *vm.Config { return b.config("processes", fmt.Sprint(os.Getpid())) },
		"Mounts":    func(b *bench) *vm.Config { return b.config("mounts") },
		"Kernel":    func(b *bench) *vm.Config { return b.config("kernel") },
		"Devices":   func(b *bench) *vm.Config { return b.config("devices") },
		"Writable":  func(b *bench) *vm.Config { return b.config("writable") },
		"Vsock":     func(b *bench) *vm.Config { return b.config("vsock") },
		"Self":      func(b *bench) *vm.Config { return b.config("self") },
		"Memory":    func(b *bench) *vm.Config { return b.config("memory") },
		"Privilege": func(b *bench) *vm.Config { return b.config("privilege", fmt.Sprintf("%016x", keptMask())) },
	} {
		for suffix, users := range map[string]bool{"": false, "InUserNamespace": true} {
			t.Run(name+suffix, func(t *testing.T) {
				b := newBench(t)
				c := with(b)
				c.UserNS = users
				b.succeeds(c)
			})
		}
	}
}

func TestIsolationOfFiles(t *testing.T) {
	b := newBench(t)
	secret := filepath.Join(b.base, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		c := b.config("files", secret)
		c.Snapshot, c.UserNS = i%2 == 0, i > 1
		vol := filepath.Join(b.base, fmt.Sprint("vol", i))
		c.VolumePaths = map[string]string{"/vol": vol}
		err := os.Mkdir(vol, 0o700)
		if err == nil {
			err = os.Chmod(vol, 0o777)
		}
		if err != nil {
			t.Fatal(err)
		}
		b.succeeds(c)
		n := b.config("chroot", secret)
		n.Snapshot, n.UserNS = c.Snapshot, c.UserNS
		b.succeeds(n)
	}
}

func TestIsolationOfNetworks(t *testing.T) {
	b := newBench(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	name := fmt.Sprintf("mmtest%d", os.Getpid())
	u, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, users := range []bool{false, true} {
		c := b.config("network", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), name)
		c.UserNS = users
		b.succeeds(c)
	}
}

func TestIsolationOfPids(t *testing.T) {
	b := newBenchWith(t, Options{Pids: 64})
	for _, users := range []bool{false, true} {
		c := b.config("forks", "64")
		c.UserNS = users
		b.succeeds(c)
	}
}

// An init that is a link to what executes it would run the first stage again,
// which is no program for a container (CVE-2019-5736 began like that).
func TestInitIsTheFirstStage(t *testing.T) {
	b := newBench(t)
	if err := os.Symlink("/proc/self/exe", filepath.Join(b.root, "self")); err != nil {
		t.Fatal(err)
	}
	c := b.config()
	c.Init = []string{"/self"}
	m, err := b.engine.Launch(t.Context(), b.spec(c))
	if err == nil {
		b.endAfter(m)
		t.Fatal("launched")
	}
}

// A container that runs what is called like the first stage runs all the same.
func TestNamedLikeTheFirstStage(t *testing.T) {
	b := newBench(t)
	m := b.start(b.config("rename", imageName))
	until(t, "a tick", func() bool { return strings.Contains(m.shown(), "tick") })
	if s, err := m.Status(t.Context()); s != vm.Running || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Status(t.Context()); s != vm.Paused || err != nil {
		t.Errorf("%v, %v", s, err)
	}
}
