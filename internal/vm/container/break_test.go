package container

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
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
		"Self":      func(b *bench) *vm.Config { return b.config("self") },
		"Memory":    func(b *bench) *vm.Config { return b.config("memory") },
		"Privilege": func(b *bench) *vm.Config { return b.config("privilege", fmt.Sprintf("%016x", keptMask())) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.t = t
			b.succeeds(with(b))
		})
	}
}

func TestIsolationOfFiles(t *testing.T) {
	b := newBench(t)
	secret := filepath.Join(b.base, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, snapshot := range []bool{true, false} {
		c := b.config("files", secret)
		c.Snapshot = snapshot
		vol := filepath.Join(b.base, fmt.Sprint("vol", snapshot))
		c.VolumePaths = map[string]string{"/vol": vol}
		b.succeeds(c)
		c = b.config("chroot", secret)
		c.Snapshot = snapshot
		b.succeeds(c)
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
	b.succeeds(b.config("network", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), name))
}

func TestIsolationOfPids(t *testing.T) {
	b := newBenchWith(t, Options{Pids: 64})
	b.succeeds(b.config("forks", "64"))
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
