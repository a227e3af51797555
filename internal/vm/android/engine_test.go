package android

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
	"minimega/internal/vm/android/androidtest"
	"minimega/internal/vm/kvm"
	"minimega/internal/vm/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// world is an SDK with a device, an engine, and a configuration for both.
type world struct {
	*androidtest.SDK
	*Engine
	config *vm.Config
}

// newWorld makes a device that is called phone and behaves as told.
func newWorld(t *testing.T, behaviour string, o Options) *world {
	t.Helper()
	for _, name := range []string{"ANDROID_AVD_HOME", "ANDROID_USER_HOME"} {
		t.Setenv(name, "")
	}
	k := kvm.New(kvm.Options{Accel: "tcg"}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{SDK: androidtest.New(t), config: vm.NewConfig()}
	hosttest.Machine{Marks: []string{w.Dir, w.Home}}.Check(t)
	o.Home = w.Home
	o.QEMU = func(ctx context.Context, id int, dir string, c *vm.Config) ([]string, error) {
		if c.QemuPath == "bad" {
			return nil, errs.New(errs.NotFound, "no arguments for bad")
		}
		_, after, err := k.Arguments(ctx, id, dir, c)
		return after, err
	}
	w.Engine = New(o)
	if err := w.AVD("phone", behaviour); err != nil {
		t.Fatal(err)
	}
	w.config.Memory, w.config.SDKPath, w.config.AVDName = 64, w.Dir, "phone"
	w.config.ExtraArgs = []string{"-read-only"} // so that several run
	return w
}

// spec makes an instance directory with a short path.
func (w *world) spec(t testing.TB) *vm.Spec {
	t.Helper()
	dir, err := os.MkdirTemp("", "avd")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Marks: []string{dir}}.Check(t) // after the clean-ups that follow
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &vm.Spec{ID: 7, Name: filepath.Base(dir), Dir: dir, Config: w.config.Clone(), Log: slog.New(slog.DiscardHandler)}
}

func (w *world) launch(t testing.TB) (*vm.Spec, *Machine) {
	t.Helper()
	s := w.spec(t)
	m, err := w.Launch(within(t, time.Minute), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-m.Done():
		default:
			if err := m.Kill(within(t, time.Minute)); err != nil {
				t.Error(err)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, m.(*Machine)
}

func TestSuite(t *testing.T) {
	vmtest.Suite(t, func(t *testing.T) (vm.Engine, *vm.Config) {
		w := newWorld(t, "", Options{})
		return w, w.config
	})
}

func TestArguments(t *testing.T) {
	e := New(Options{QEMU: func(_ context.Context, id int, dir string, c *vm.Config) ([]string, error) {
		if c.KernelPath != "" || c.Disks != nil || c.QemuAppend[0] != "-x" || c.Memory != 64 {
			t.Errorf("asked for %+v", c)
		}
		return []string{"-name", "3", "-vnc", "unix:/i/vnc", "-m", "64", "-vga", "std", "-S"}, nil
	}})
	c := vm.NewConfig()
	c.AVDName, c.Memory, c.KernelPath, c.Disks, c.QemuAppend = "phone", 64, "/k", []vm.DiskConfig{{Path: "/d"}}, []string{"-x"}
	s := &vm.Spec{ID: 3, Dir: "/i", Config: c}
	for name, k := range map[string]struct {
		set  func()
		want string
	}{
		"default": {func() {}, "-no-window"},
		"all":     {func() { c.WritableSystem, c.ExtraArgs = true, []string{"-gpu", "off"} }, "-no-window -writable-system -gpu off"},
		"window":  {func() { c.NoWindow, c.WritableSystem, c.ExtraArgs = false, false, []string{"-gpu", "off"} }, "-gpu off"},
	} {
		c.NoWindow, c.WritableSystem, c.ExtraArgs = true, false, nil
		k.set()
		got, err := e.arguments(t.Context(), s, 5560)
		want := "-avd phone -port 5560 -stdouterr-file /i/android-emulator.log " + k.want + " -qemu -name 3 -m 64 -S"
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v\nwant %s", name, got, err, want)
		}
	}
}
