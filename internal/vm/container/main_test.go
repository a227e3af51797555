package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

// guest is the path of testdata/guest, built.
var guest string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if text := os.Getenv(standIn); text != "" {
		fmt.Fprintln(os.Stderr, runStandIn(text)) // until it is killed
		return 1
	}
	dir, err := os.MkdirTemp("", "mmcontainer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	guest = filepath.Join(dir, "guest")
	if err := makeGuest(guest); err != nil {
		fmt.Fprintln(os.Stderr, "making the guest:", err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// guestEnv names a guest that is built already, for machines without Go.
const guestEnv = "CONTAINER_TEST_GUEST"

func makeGuest(path string) error {
	if built := os.Getenv(guestEnv); built != "" {
		text, err := os.ReadFile(built)
		if err != nil {
			return err
		}
		return os.WriteFile(path, text, 0o755)
	}
	build := exec.Command("go", "build", "-o", path, "./testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// bench is an engine with a directory of its own.
type bench struct {
	t      *testing.T
	engine *Engine
	base   string
	root   string // file system with /guest
	next   int
	log    bytes.Buffer

	machine hosttest.Machine
	before  hosttest.Snapshot
}

func newBench(t *testing.T) *bench { return newBenchWith(t, Options{}) }

func newBenchWith(t *testing.T, o Options) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, mounts, control groups")
	}
	base, err := os.MkdirTemp("", "mmc")
	if err != nil {
		t.Fatal(err)
	}
	machine := hosttest.Machine{Marks: []string{base, filepath.Base(groupParent(base))}}
	machine.Check(t) // after all clean-ups below
	b := &bench{machine: machine, before: machine.Take(), t: t, base: base, root: filepath.Join(base, "root")}
	o.Base = base
	b.engine = New(o, slog.New(slog.NewTextHandler(&b.log, nil)))
	t.Cleanup(func() {
		if err := b.engine.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	for _, dir := range []string{b.root, filepath.Join(b.root, "tmp"), filepath.Join(b.root, "mnt")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(guest, filepath.Join(b.root, "guest")); err != nil {
		t.Fatal(err)
	}
	return b
}

// config is that of a container that runs the guest with arguments.
func (b *bench) config(args ...string) *vm.Config {
	c := vm.NewConfig()
	c.FilesystemPath, c.Memory, c.UUID = b.root, 64, "11111111-2222-3333-4444-555555555555"
	c.Init = append([]string{"/guest"}, args...)
	return c
}

// spec makes an instance directory and a network namespace.
func (b *bench) spec(c *vm.Config) *vm.Spec {
	b.t.Helper()
	dir := filepath.Join(b.base, fmt.Sprint(b.next))
	b.next++
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	s := &vm.Spec{ID: b.next - 1, Name: fmt.Sprintf("box%d", b.next-1), Namespace: "minimega", Dir: dir, Config: c, Log: b.engine.log}
	space, err := b.engine.NewSpace(b.t.Context(), s)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { space.Close() })
	s.Space = space
	return s
}

// launch launches a container that is ended with the test.
func (b *bench) launch(c *vm.Config) *Machine {
	b.t.Helper()
	m, err := b.engine.Launch(b.t.Context(), b.spec(c))
	if err != nil {
		b.t.Fatal(err)
	}
	b.endAfter(m)
	return m.(*Machine)
}

func (b *bench) endAfter(m vm.Machine) {
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			b.t.Error(err)
		}
		if err := m.Close(); err != nil {
			b.t.Error(err)
		}
	})
}

// start launches a container and starts it.
func (b *bench) start(c *vm.Config) *Machine {
	b.t.Helper()
	m := b.launch(c)
	if err := m.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// wait waits for the end and returns the exit status and what was shown last.
func (b *bench) wait(m *Machine) (code int, shown string) {
	b.t.Helper()
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		b.t.Fatalf("does not end: %s", m.shown())
	}
	text, err := os.ReadFile(filepath.Join(m.spec.Dir, statusName))
	if err != nil || len(text) != 4 {
		b.t.Fatalf("status %x, %v", text, err)
	}
	ws := unix.WaitStatus(binary.NativeEndian.Uint32(text))
	if !ws.Exited() {
		b.t.Fatalf("killed by %v: %s", ws.Signal(), m.shown())
	}
	return ws.ExitStatus(), m.shown()
}

func (m *Machine) shown() string {
	m.console.mu.Lock()
	defer m.console.mu.Unlock()
	return string(m.console.screen.text())
}

// succeeds runs the guest with arguments and wants it to be content.
func (b *bench) succeeds(c *vm.Config) string {
	b.t.Helper()
	code, shown := b.wait(b.start(c))
	if code != 0 {
		b.t.Errorf("%q: exit status %d: %s", c.Init, code, shown)
	}
	return shown
}

// until waits for something to become true.
func until(t *testing.T, what string, ask func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ask(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("does not come: ", what)
		}
	}
}

func dialConsole(t *testing.T, m *Machine, network string) net.Conn {
	t.Helper()
	address := filepath.Join(m.spec.Dir, consoleName)
	if network == "tcp" {
		address = net.JoinHostPort("127.0.0.1", fmt.Sprint(m.ConsolePort()))
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c
}
