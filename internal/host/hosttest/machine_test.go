package hosttest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each kind of thing is found, and only that of the test.
func TestSince(t *testing.T) {
	dir := t.TempDir()
	m := Machine{Marks: []string{dir}, Temps: []string{filepath.Join(dir, "tmp")}}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := m.Take()
	if left := m.Since(before); left != nil {
		t.Fatalf("at once: %v", left)
	}
	sleep := exec.Command("sleep", "60")
	sleep.Dir = dir
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tmp", "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	left := m.Since(before)
	for _, want := range []string{"process ", "socket " + dir, "file " + dir} {
		if !slices.ContainsFunc(left, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no %q in %q", want, left)
		}
	}
	if other := (Machine{Marks: []string{dir + "other"}}); len(other.Take()) != 0 {
		t.Errorf("of another test: %v", other.Take())
	}
	_ = sleep.Process.Kill()
	_ = sleep.Wait()
	_ = l.Close()
	_ = os.Remove(filepath.Join(dir, "tmp", "f"))
	if left := m.Left(before); left != nil {
		t.Errorf("when all is gone: %v", left)
	}
}

// What only root can make.
func TestSinceRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts, network namespaces")
	}
	dir := t.TempDir()
	name := "hosttest" + filepath.Base(filepath.Dir(dir))
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	run("ip", "netns", "add", name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	m := Machine{Marks: []string{dir, name}, Netns: name}
	before := m.Take()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	run("ip", "netns", "exec", name, "ip", "link", "add", "b0", "type", "bridge")
	run("ip", "netns", "add", name+"x")
	left := strings.Join(m.Since(before), "\n")
	for _, want := range []string{"mount tmpfs " + dir, "link b0", "network namespace " + name + "x"} {
		if !strings.Contains(left, want) {
			t.Errorf("no %q in %q", want, left)
		}
	}
	run("ip", "netns", "del", name+"x")
	run("ip", "netns", "exec", name, "ip", "link", "del", "b0")
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if left := m.Left(before); left != nil {
		t.Errorf("when all is gone: %v", left)
	}
}

// A namespace without a name is looked at from within.
func TestAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	done := make(chan []string)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		m := Machine{Alone: true}
		before := m.Take()
		if out, err := exec.Command("ip", "link", "add", "b0", "type", "bridge").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		done <- m.Since(before)
	}()
	if left := <-done; !slices.Equal(left, []string{"link b0"}) {
		t.Errorf("%q", left)
	}
}

// Check fails a test that leaves something.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	fake := &recorder{TB: t}
	Machine{Temps: []string{dir}}.Check(fake)
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fake.cleanup()
	if len(fake.errors) != 1 {
		t.Errorf("errors: %v", fake.errors)
	}
}

// recorder is a test that remembers how it failed.
type recorder struct {
	testing.TB
	cleanup func()
	errors  []string
}

func (r *recorder) Cleanup(f func())                  { r.cleanup = f }
func (r *recorder) Errorf(format string, args ...any) { r.errors = append(r.errors, format) }
