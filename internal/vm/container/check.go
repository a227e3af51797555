package container

import (
	"context"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

const (
	maxHostname = 64 // __NEW_UTS_LEN
	maxFifos    = 1024
	maxWords    = 64 << 10 // bytes of all that init is given
)

// Check refuses what cannot work.
func (e *Engine) Check(ctx context.Context, c *vm.Config) error {
	if err := e.Ready(ctx); err != nil {
		return err
	}
	if c.FilesystemPath == "" {
		return errs.WithRemedy(errs.New(errs.Invalid, "unable to create container without a configured filesystem"), "set `vm config filesystem`")
	}
	root, err := e.opts.Roots.Root(ctx, c.FilesystemPath)
	if err != nil {
		return err
	}
	if err := root.release(); err != nil {
		return err
	}
	for _, check := range []func(*vm.Config) error{checkSize, checkWords, checkNets, e.checkUsers} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

func checkSize(c *vm.Config) error {
	switch {
	case c.VCPUs == 0:
		return errs.New(errs.Invalid, "a VM needs at least one vcpu")
	case c.Memory == 0:
		return errs.New(errs.Invalid, "a VM needs at least 1 MB of memory")
	case c.Fifos > maxFifos:
		return errs.New(errs.Invalid, "too many fifos: %d, the most is %d", c.Fifos, maxFifos)
	case c.VCPUs > 1<<16 || c.Memory > 1<<40:
		return errs.New(errs.Invalid, "%d vcpus and %d MB of memory are more than any host has", c.VCPUs, c.Memory)
	}
	return nil
}

// checkWords refuses texts that would not reach the kernel as they are.
func checkWords(c *vm.Config) error {
	if len(c.Init) == 0 || c.Init[0] == "" {
		return errs.WithRemedy(errs.New(errs.Invalid, "a container needs a program to run"), "set `vm config init`")
	}
	if len(c.Hostname) > maxHostname {
		return errs.New(errs.Invalid, "hostname %q is longer than %d characters", c.Hostname, maxHostname)
	}
	words := append([]string{c.FilesystemPath, c.Hostname, c.Preinit}, c.Init...)
	size := 0
	for inside, source := range c.VolumePaths {
		words = append(words, inside, source)
		if !filepath.IsAbs(source) {
			return errs.New(errs.Invalid, "volume %s: %q is not an absolute path", inside, source)
		}
	}
	for _, w := range words {
		if size += len(w) + 1; strings.Contains(w, "\x00") {
			return errs.New(errs.Invalid, "%q has a zero byte in it", w)
		}
	}
	if size > maxWords {
		return errs.New(errs.Invalid, "init and volumes are too long")
	}
	if c.Preinit != "" {
		if !filepath.IsAbs(c.Preinit) {
			return errs.New(errs.Invalid, "preinit %s is not an absolute path", c.Preinit)
		}
		if err := unix.Access(c.Preinit, unix.X_OK); err != nil {
			return errs.New(errs.NotFound, "preinit %s cannot be executed: %w", c.Preinit, err)
		}
	}
	return nil
}

// checkUsers refuses a user namespace where it would need more users than there are.
func (e *Engine) checkUsers(c *vm.Config) error {
	if c.UserNS && e.opts.Rootless {
		return errs.WithRemedy(errs.New(errs.Unsupported, "without root there are no users to map a container's to"),
			"run minimega as root, or set `vm config userns false`")
	}
	return nil
}

func checkNets(c *vm.Config) error {
	if len(c.Bonds) > 0 {
		return vm.NotSupported(vm.Container, "bonds")
	}
	return nil
}
