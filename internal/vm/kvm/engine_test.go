package kvm

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func newEngine(t testing.TB, o Options) *Engine {
	e := New(o, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// small is a configuration that needs little of the host.
func small() *vm.Config {
	c := vm.NewConfig()
	c.Memory = 32
	return c
}

// spec makes an instance directory with a short path: those of unix sockets
// are limited.
func spec(t testing.TB, id int, c *vm.Config) *vm.Spec {
	dir, err := os.MkdirTemp("", "kvm")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Marks: []string{dir}}.Check(t) // after the clean-ups that follow
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &vm.Spec{ID: id, Name: "test-" + filepath.Base(dir), Dir: dir, Config: c, Log: slog.New(slog.DiscardHandler)}
}

func launchVM(t testing.TB, e *Engine, s *vm.Spec) *Machine {
	t.Helper()
	m, err := e.Launch(within(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m.(*Machine)
}

func TestKVMProbe(t *testing.T) {
	start := time.Now()
	e := newEngine(t, Options{})
	s := e.KVM(within(t, time.Minute))
	t.Logf("%+v after %v", s, time.Since(start))
	if s.Works == (s.Reason != "") {
		t.Errorf("status %+v: a reason must be given exactly when KVM does not work", s)
	}
	start = time.Now()
	m := launchVM(t, e, spec(t, 1, small()))
	t.Logf("launched after %v", time.Since(start))
	if err := m.Start(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
}
