package kvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
)

// Check refuses what cannot work.
func (e *Engine) Check(ctx context.Context, c *vm.Config) error {
	if _, err := findQEMU(c.QemuPath); err != nil {
		return err
	}
	for _, check := range []func(*vm.Config) error{checkSize, checkFiles, checkTPM, checkDisks, checkPorts, checkBonds} {
		if err := check(c); err != nil {
			return err
		}
	}
	return e.checkCapabilities(ctx, c)
}

func checkSize(c *vm.Config) error {
	if c.VCPUs == 0 {
		return errs.New(errs.Invalid, "a VM needs at least one vcpu")
	}
	if c.Memory == 0 {
		return errs.New(errs.Invalid, "a VM needs at least 1 MB of memory")
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return err
	}
	total := uint64(si.Totalram) * uint64(si.Unit) >> 20
	if c.Memory > total {
		return errs.WithRemedy(errs.New(errs.Resource, "a VM of %d MB of memory does not fit: this host has %d MB", c.Memory, total),
			"lower `vm config memory`")
	}
	return nil
}

func checkFiles(c *vm.Config) error {
	for _, f := range []struct{ what, path string }{
		{"kernel", c.KernelPath}, {"initrd", c.InitrdPath}, {"cdrom", c.CdromPath}, {"state file", c.MigratePath},
	} {
		if err := checkFile(f.what, f.path); err != nil {
			return err
		}
	}
	return nil
}

func checkFile(what, path string) error {
	if path == "" {
		return nil
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return host.Missing(what, path)
	case err != nil:
		return errs.New(errs.Permission, "%s: %w", what, err)
	case st.IsDir():
		return errs.New(errs.Invalid, "%s %s is a directory", what, path)
	}
	return nil
}

// checkTPM refuses what no software TPM can answer at. Trying would end a
// swtpm that was told to serve one client.
func checkTPM(c *vm.Config) error {
	if c.TpmSocketPath == "" {
		return nil
	}
	err := checkFile("TPM socket", c.TpmSocketPath)
	if err == nil && !isSocket(c.TpmSocketPath) {
		err = errs.New(errs.Invalid, "TPM socket %s is no socket", c.TpmSocketPath)
	}
	if err == nil {
		return nil
	}
	return errs.WithRemedy(err, "start swtpm: swtpm socket --tpm2 --tpmstate dir=DIR --ctrl type=unixio,path=SOCKET")
}

func isSocket(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

// checkBonds refuses what would be left out.
func checkBonds(c *vm.Config) error {
	if len(c.Bonds) == 0 {
		return nil
	}
	return errs.WithRemedy(vm.NoBonds(), "`clear vm config bonds`")
}

func checkDisks(c *vm.Config) error {
	for _, d := range c.Disks {
		if _, err := disk.Chain(d.Path); err != nil {
			return err
		}
		if err := disk.Free(d.Path, !c.Snapshot); err != nil {
			return err
		}
	}
	return nil
}

func checkPorts(c *vm.Config) error {
	_, err := portNames(c.VirtioPorts)
	return err
}

// checkCapabilities asks QEMU about what is not in every QEMU.
func (e *Engine) checkCapabilities(ctx context.Context, c *vm.Config) error {
	if plain(c) {
		return nil
	}
	caps, err := e.Capabilities(ctx, c.QemuPath)
	if err != nil {
		return err
	}
	if c.CPU != "" && !has(caps.CPUs, cpuName(c.CPU)) {
		return errs.New(errs.Invalid, "invalid QEMU CPU: `%s`, see help", c.CPU)
	}
	if name, _, _ := strings.Cut(c.Machine, ","); name != "" && !has(caps.Machines, name) {
		return errs.New(errs.Invalid, "invalid QEMU machine: `%s`, see help", c.Machine)
	}
	for i, n := range c.Networks {
		if n.Driver != "" && !has(caps.NetDrivers, n.Driver) {
			return errs.New(errs.Invalid, "QEMU %s has no network driver %q, which interface %d asks for", caps.Version, n.Driver, i)
		}
	}
	if c.BidirectionalCopyPaste && !has(caps.Chardevs, "qemu-vdagent") {
		return errs.WithRemedy(errs.New(errs.Unsupported, "QEMU %s has no qemu-vdagent, which bidirectional copy and paste needs", caps.Version),
			"use QEMU 6.1 or newer built with it, or set bidirectional-copy-paste false")
	}
	return nil
}

// plain configurations ask for nothing that a QEMU may lack.
func plain(c *vm.Config) bool {
	for _, n := range c.Networks {
		if n.Driver != "" && n.Driver != vm.DefaultDriver {
			return false
		}
	}
	return (c.CPU == "" || c.CPU == "host" || c.CPU == "max") && c.Machine == "" && !c.BidirectionalCopyPaste
}

// cpuName is the model in "model,+feature,…".
func cpuName(cpu string) string {
	name, _, _ := strings.Cut(cpu, ",")
	return name
}

// describe words a step that failed because QEMU ended.
func describe(status fmt.Stringer, words string) string {
	if words == "" {
		return status.String() + ", without a word"
	}
	return status.String() + ": " + words
}
