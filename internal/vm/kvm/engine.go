// Package kvm makes QEMU machines: it writes their command line, starts them
// as processes that outlive this one, and drives them over QMP. What QEMU and
// the host can do is asked, not assumed; without a KVM that works, machines
// run under TCG.
package kvm

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/qmp"
	"minimega/internal/vm"
)

// Options change how machines are made. The zero value is ready to use.
type Options struct {
	VNCListen    string        // address for VNC clients, default 127.0.0.1
	AbsSnapshot  bool          // overlays name their backing file by absolute path
	CacheDir     string        // for what was found out about QEMU and KVM; "" for none
	StartTimeout time.Duration // longest wait for a new QEMU, default two minutes
	Accel        string        // "kvm" or "tcg" instead of a probe
	// Hugepages returns the path of the hugepage file system to use, or "".
	Hugepages func() string
	// Started is told of the process of every machine that was launched or
	// adopted, and its number of processors; Ended when it has gone.
	Started func(pid, vcpus int)
	Ended   func(pid int)
	// OnEvent is told what QEMU reports, in order per machine. It must not
	// block.
	OnEvent func(id int, e qmp.Event)
}

// Engine makes machines of type vm.KVM.
type Engine struct {
	opts Options
	log  *slog.Logger
	caps *capCache
	kvm  *kvmProbe

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// New returns an engine and begins to find out whether KVM works.
func New(opts Options, log *slog.Logger) *Engine {
	if opts.VNCListen == "" {
		opts.VNCListen = "127.0.0.1"
	}
	if opts.StartTimeout == 0 {
		opts.StartTimeout = 2 * time.Minute
	}
	if opts.Hugepages == nil {
		opts.Hugepages = func() string { return "" }
	}
	if opts.Started == nil {
		opts.Started = func(int, int) {}
	}
	if opts.Ended == nil {
		opts.Ended = func(int) {}
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &Engine{opts: opts, log: log, caps: newCapCache(opts.CacheDir), kvm: newKVMProbe(opts), stop: stop}
	e.wg.Go(func() {
		if s := e.kvm.status(ctx); !s.Works && opts.Accel == "" && ctx.Err() == nil {
			log.Warn("guests run under TCG, not KVM", "reason", s.Reason)
		}
	})
	return e
}

// Close waits for what the engine itself runs. Machines are not its own.
func (e *Engine) Close() error {
	e.stop()
	e.wg.Wait()
	return nil
}

// Type returns vm.KVM.
func (e *Engine) Type() vm.Type { return vm.KVM }

// KVM tells whether guests run under KVM, and if not, why.
func (e *Engine) KVM(ctx context.Context) KVMStatus { return e.kvm.status(ctx) }

// Capabilities asks the QEMU that a configuration names by path or by a name
// to be found in $PATH.
func (e *Engine) Capabilities(ctx context.Context, qemu string) (*Capabilities, error) {
	path, err := findQEMU(qemu)
	if err != nil {
		return nil, err
	}
	return e.caps.get(ctx, path)
}

// CPUs returns the CPU models of a QEMU.
func (e *Engine) CPUs(ctx context.Context, qemu string) ([]string, error) {
	return e.list(ctx, qemu, func(c *Capabilities) []string { return c.CPUs })
}

// Machines returns the machine types of a QEMU.
func (e *Engine) Machines(ctx context.Context, qemu string) ([]string, error) {
	return e.list(ctx, qemu, func(c *Capabilities) []string { return c.Machines })
}

// NetDrivers returns the network devices of a QEMU.
func (e *Engine) NetDrivers(ctx context.Context, qemu string) ([]string, error) {
	return e.list(ctx, qemu, func(c *Capabilities) []string { return c.NetDrivers })
}

func (e *Engine) list(ctx context.Context, qemu string, which func(*Capabilities) []string) ([]string, error) {
	caps, err := e.Capabilities(ctx, qemu)
	if err != nil {
		return nil, err
	}
	return which(caps), nil
}

const plainQEMU = "qemu-system-x86_64"

// findQEMU returns the path of a QEMU. The default name `kvm` is missing on
// many systems, where the program has only its own name.
func findQEMU(name string) (string, error) {
	if name == "" {
		name = vm.DefaultQemu
	}
	path, err := exec.LookPath(name)
	if err != nil && name == vm.DefaultQemu {
		path, err = exec.LookPath(plainQEMU)
	}
	switch {
	case err == nil:
		return filepath.Abs(path)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", errs.WithRemedy(errs.New(errs.NotFound, "QEMU not found: there is no program %s", name),
			"install the package qemu-system-x86, or set `vm config qemu`")
	}
	return "", errs.New(errs.Permission, "QEMU cannot be run: %w", err)
}

// program returns the QEMU to run. Without KVM a wrapper called `kvm`, which
// on some systems insists on it, is passed by.
func program(name string, a accel) (string, error) {
	path, err := findQEMU(name)
	if err != nil || a == withKVM || filepath.Base(path) != vm.DefaultQemu {
		return path, err
	}
	if plain, err := exec.LookPath(plainQEMU); err == nil {
		return filepath.Abs(plain)
	}
	return path, nil
}

func (e *Engine) accel(ctx context.Context) accel {
	return accel(e.kvm.status(ctx).Works)
}

// arguments builds the command line before overrides, fitted to the QEMU that
// will run it.
func (e *Engine) arguments(ctx context.Context, id int, dir string, c *vm.Config, a accel) ([]string, error) {
	s := argSpec{id: id, dir: dir, config: c, accel: a, hugepages: e.opts.Hugepages(), ahciDisk: "ide-drive"}
	for _, d := range c.Disks {
		if d.Interface != "ahci" {
			continue
		}
		caps, err := e.Capabilities(ctx, c.QemuPath)
		if err != nil {
			return nil, err
		}
		if !has(caps.Devices, s.ahciDisk) { // gone since QEMU 6.0
			s.ahciDisk = "ide-hd"
		}
		break
	}
	return args(s)
}

// Arguments returns the command line of a machine that would be launched now,
// before and after the overrides of its configuration.
func (e *Engine) Arguments(ctx context.Context, id int, dir string, c *vm.Config) (before, after []string, err error) {
	if before, err = e.arguments(ctx, id, dir, c, e.accel(ctx)); err != nil {
		return nil, nil, err
	}
	return before, override(before, c.QemuOverride), nil
}

// clean makes the words of a program, which a guest may have influenced, fit
// for one line of an error.
func clean(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	kept := lines[:0]
	for _, line := range lines {
		line = strings.TrimSpace(strings.Map(printable, line))
		if line != "" && !noise(line) {
			kept = append(kept, line)
		}
	}
	if len(kept) > maxWords {
		kept = kept[len(kept)-maxWords:]
	}
	return strings.Join(kept, "; ")
}

const maxWords = 8 // lines

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\ufffd' {
		return ' '
	}
	return r
}

// noise is what QEMU says on every start.
func noise(line string) bool {
	return strings.Contains(line, "info: QEMU waiting for connection on") ||
		strings.HasPrefix(line, "qemu: module ui-") ||
		strings.Contains(line, "Image format was not specified for") ||
		strings.HasPrefix(line, "Automatically detecting the format is dangerous") ||
		strings.HasPrefix(line, "Specify the 'raw' format explicitly")
}
