package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

func TestCheck(t *testing.T) {
	e := newEngine(t, Options{Accel: "tcg", CacheDir: t.TempDir()})
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set  func(*vm.Config)
		kind errs.Kind
		want string
	}{
		"good":    {func(c *vm.Config) { c.KernelPath, c.CPU, c.Machine = text, "qemu64,+aes", "q35" }, "", ""},
		"qemu":    {func(c *vm.Config) { c.QemuPath = "/nonexistent/qemu" }, errs.NotFound, "QEMU not found"},
		"vcpus":   {func(c *vm.Config) { c.VCPUs = 0 }, errs.Invalid, "at least one vcpu"},
		"memory":  {func(c *vm.Config) { c.Memory = 1 << 40 }, errs.Resource, "does not fit"},
		"none":    {func(c *vm.Config) { c.Memory = 0 }, errs.Invalid, "at least 1 MB"},
		"kernel":  {func(c *vm.Config) { c.KernelPath = "/nonexistent/k" }, errs.NotFound, "kernel /nonexistent/k does not exist"},
		"initrd":  {func(c *vm.Config) { c.InitrdPath = dir }, errs.Invalid, "initrd " + dir + " is a directory"},
		"cdrom":   {func(c *vm.Config) { c.CdromPath = "/nonexistent/c" }, errs.NotFound, "cdrom /nonexistent/c"},
		"state":   {func(c *vm.Config) { c.MigratePath = "/nonexistent/s" }, errs.NotFound, "state file"},
		"tpm":     {func(c *vm.Config) { c.TpmSocketPath = "/nonexistent/s" }, errs.NotFound, "TPM socket"},
		"no tpm":  {func(c *vm.Config) { c.TpmSocketPath = text }, errs.Invalid, "is no socket (start swtpm"},
		"bonds":   {func(c *vm.Config) { c.Bonds = []vm.BondConfig{{}} }, errs.Unsupported, "bonds need Open vSwitch"},
		"missing": {func(c *vm.Config) { c.Disks = []vm.DiskConfig{{Path: "/nonexistent/d"}} }, errs.NotFound, "disk image /nonexistent/d does not exist"},
		"text":    {func(c *vm.Config) { c.Disks = []vm.DiskConfig{{Path: text}} }, errs.Invalid, "is no disk image"},
		"ports":   {func(c *vm.Config) { c.VirtioPorts = "a,," }, errs.Invalid, "empty name"},
		"cpu":     {func(c *vm.Config) { c.CPU = "abacus" }, errs.Invalid, "invalid QEMU CPU: `abacus`, see help"},
		"machine": {func(c *vm.Config) { c.Machine = "loom" }, errs.Invalid, "invalid QEMU machine: `loom`, see help"},
		"driver":  {func(c *vm.Config) { c.Networks = []vm.NetConfig{{Driver: "string"}} }, errs.Invalid, `no network driver "string"`},
	} {
		cfg := small()
		c.set(cfg)
		err := e.Check(t.Context(), cfg)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v (%s), want %s (%s)", name, err, errs.KindOf(err), c.want, c.kind)
		}
	}
}
