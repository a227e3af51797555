package guest

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// KernelEnv is the environment variable that names the kernel to use: a
// vmlinuz file, or a directory with vmlinuz and modules/ in it.
const KernelEnv = "MINIMEGA_KERNEL"

// KernelDir is where setup/kernel puts a kernel.
const KernelDir = "/usr/local/share/minimega/kernel"

const modulesRoot = "/lib/modules"

// Kernel is a Linux kernel that a guest can boot.
type Kernel struct {
	Path       string // vmlinuz, for QEMU's -kernel and for boot loaders
	Unpacked   string // vmlinux, for -kernel only; "" if setup/kernel did not make it. See Fast
	ModulesDir string // "" if its modules are not there
	Version    string // as `uname -r` will say; "" if unknown
}

// Fast returns the file that QEMU boots soonest: under emulation the unpacked
// kernel saves half of the time. But it is started without a BIOS setting the
// screen up (PVH), so the guest then has no console on a VGA screen.
func (k Kernel) Fast() string {
	if k.Unpacked != "" {
		return k.Unpacked
	}
	return k.Path
}

// FindKernel looks for a kernel where $MINIMEGA_KERNEL says; if that is not
// set, in KernelDir, then in /boot: the running kernel's version first, and of
// the others the newest file. A kernel with modules goes before one without.
func FindKernel() (Kernel, error) {
	return findKernel(os.Getenv(KernelEnv), KernelDir, "/boot", modulesRoot, release())
}

func findKernel(named, dir, boot, modules, running string) (Kernel, error) {
	if named != "" {
		k, err := kernelAt(named, modules)
		if err != nil {
			return Kernel{}, errs.WithRemedy(errs.New(errs.NotFound, "no kernel at %s: %w", named, err),
				"correct $"+KernelEnv+", or unset it")
		}
		return k, nil
	}
	var bare *Kernel
	for _, path := range candidates(dir, boot, running) {
		k, err := kernelAt(path, modules)
		if err != nil {
			continue
		}
		if k.ModulesDir != "" {
			return k, nil
		}
		if bare == nil {
			bare = &k
		}
	}
	if bare != nil {
		return *bare, nil
	}
	return Kernel{}, errs.WithRemedy(errs.New(errs.NotFound, "no Linux kernel for guests in %s or %s", dir, boot),
		"run setup/kernel, or name one in $"+KernelEnv)
}

func candidates(dir, boot, running string) []string {
	list := []string{dir}
	if running != "" {
		list = append(list, filepath.Join(boot, "vmlinuz-"+running))
	}
	others, err := filepath.Glob(filepath.Join(boot, "vmlinuz-*"))
	if err != nil {
		return list
	}
	slices.SortFunc(others, func(a, b string) int { return modTime(b).Compare(modTime(a)) })
	return append(list, others...)
}

// kernelAt reads what lies at path: a kernel, or a directory as setup/kernel
// makes it.
func kernelAt(path, modules string) (Kernel, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Kernel{}, errors.Unwrap(err)
	}
	k := Kernel{Path: path}
	dir := filepath.Dir(path)
	if st.IsDir() {
		dir, k.Path = path, filepath.Join(path, "vmlinuz")
	}
	if err := checkKernel(k.Path); err != nil {
		return Kernel{}, err
	}
	if v, ok := strings.CutPrefix(filepath.Base(k.Path), "vmlinuz-"); ok {
		k.Version = v
	}
	if v, err := os.ReadFile(filepath.Join(dir, "version")); err == nil && filepath.Base(k.Path) == "vmlinuz" {
		k.Version = strings.TrimSpace(string(v))
		if unpacked := filepath.Join(dir, "vmlinux"); isELF(unpacked) {
			k.Unpacked = unpacked
		}
	}
	k.ModulesDir = findModules(dir, modules, k.Version)
	return k, nil
}

// findModules returns the module tree that belongs to the kernel, or "".
func findModules(dir, system, version string) string {
	places := []string{filepath.Join(dir, "modules")}
	if version != "" {
		places = append(places, filepath.Join(system, version), filepath.Join(dir, "../lib/modules", version))
	}
	for _, d := range places {
		if st, err := os.Stat(filepath.Join(d, "kernel")); err == nil && st.IsDir() {
			return filepath.Clean(d)
		}
	}
	return ""
}

func isELF(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// checkKernel tells whether the file can be read and is a kernel: one of ours
// starts with a boot sector's mark (Documentation/x86/boot.rst) or, on arm64,
// with that of its image format.
func checkKernel(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 0x210)
	if _, err := f.ReadAt(head, 0); err != nil {
		return fmt.Errorf("%s is no Linux kernel", path)
	}
	if string(head[0x202:0x206]) != "HdrS" && string(head[0x38:0x3c]) != "ARM\x64" {
		return fmt.Errorf("%s is no Linux kernel", path)
	}
	return nil
}

func modTime(path string) time.Time {
	st, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
