// Package android makes Android virtual devices: it starts the emulator of the
// Android SDK as a process that outlives this one, and drives it through the
// emulator's console, a line protocol on a TCP port of the loopback interface
// (https://developer.android.com/studio/run/emulator-console).
package android

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// Options change how machines are made.
type Options struct {
	// QEMU returns the command line of a QEMU with that configuration, without
	// the program's name and after overrides. The emulator is one.
	QEMU func(ctx context.Context, id int, dir string, c *vm.Config) ([]string, error)
	// Home holds the console's token and, unless configured otherwise, the
	// virtual devices; default the home directory of the user.
	Home         string
	StartTimeout time.Duration // longest wait for a new emulator, default two minutes
}

// Engine makes machines of type vm.Android. It holds no state.
type Engine struct {
	opts Options
}

var (
	_ vm.Engine  = (*Engine)(nil)
	_ vm.Adopter = (*Engine)(nil)
)

// New returns an engine.
func New(opts Options) *Engine {
	if opts.StartTimeout == 0 {
		opts.StartTimeout = 2 * time.Minute
	}
	return &Engine{opts: opts}
}

// Type returns vm.Android.
func (e *Engine) Type() vm.Type { return vm.Android }

func (e *Engine) home() (string, error) {
	if e.opts.Home != "" {
		return e.opts.Home, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errs.WithRemedy(errs.New(errs.NotFound, "no home directory, where the emulator keeps its token: %w", err),
			"set HOME before minimega is started")
	}
	return home, nil
}

// arguments builds the emulator's command line. The order is part of the
// interface.
func (e *Engine) arguments(ctx context.Context, s *vm.Spec, port int) ([]string, error) {
	c := s.Config
	list := []string{"-avd", c.AVDName, "-port", itoa(port), "-stdouterr-file", filepath.Join(s.Dir, logName)}
	if c.NoWindow {
		list = append(list, "-no-window")
	}
	if c.WritableSystem {
		list = append(list, "-writable-system")
	}
	list = append(list, c.ExtraArgs...)
	qemu, err := e.opts.QEMU(ctx, s.ID, s.Dir, forQEMU(c))
	if err != nil {
		return nil, err
	}
	return append(append(list, "-qemu"), withoutDisplay(qemu)...), nil
}

// forQEMU returns the part of a configuration that an emulator's QEMU takes.
// Kernel, disks and the like come from the virtual device; the fields for
// them are those of a VM of type kvm only.
func forQEMU(c *vm.Config) *vm.Config {
	n := c.Clone()
	n.KVMConfig = vm.NewConfig().KVMConfig
	n.QemuPath, n.QemuAppend, n.QemuOverride = c.QemuPath, slices.Clone(c.QemuAppend), slices.Clone(c.QemuOverride)
	return n
}

// withoutDisplay leaves out -vnc and -vga with their values: the emulator has
// a display of its own.
func withoutDisplay(list []string) []string {
	var kept []string
	for i := 0; i < len(list); i++ {
		if list[i] == "-vnc" || list[i] == "-vga" {
			i++
			continue
		}
		kept = append(kept, list[i])
	}
	return kept
}

// environment is ours, with what the configuration names on top.
func (e *Engine) environment(c *vm.Config) ([]string, error) {
	home, err := e.home()
	if err != nil {
		return nil, err
	}
	avds, err := e.avdHome(c)
	if err != nil {
		return nil, err
	}
	set := map[string]string{"HOME": home, "ANDROID_AVD_HOME": avds}
	if c.SDKPath != "" {
		set["ANDROID_SDK_ROOT"], set["ANDROID_HOME"] = c.SDKPath, c.SDKPath
	}
	if c.ADBPath != "" { // where the emulator looks for it
		adb, err := findADB(c)
		if err != nil {
			return nil, err
		}
		set["PATH"] = filepath.Dir(adb)
		if path := os.Getenv("PATH"); path != "" {
			set["PATH"] += string(os.PathListSeparator) + path
		}
	}
	var env []string
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); set[name] == "" {
			env = append(env, kv)
		}
	}
	for name, value := range set {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env, nil
}
