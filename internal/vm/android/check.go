package android

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// Check refuses what cannot work.
func (e *Engine) Check(ctx context.Context, c *vm.Config) error {
	if len(c.Networks) > 0 {
		return errs.WithRemedy(errs.New(errs.Unsupported, "android VM networking is not supported yet"), "`clear vm config networks`")
	}
	for _, check := range []func(*vm.Config) error{checkSize, checkPrograms, e.checkAVD, checkPorts, checkExtra} {
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
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
	if total := uint64(si.Totalram) * uint64(si.Unit) >> 20; c.Memory > total {
		return errs.WithRemedy(errs.New(errs.Resource, "a VM of %d MB of memory does not fit: this host has %d MB", c.Memory, total),
			"lower `vm config memory`")
	}
	return nil
}

func checkPrograms(c *vm.Config) error {
	if _, err := findEmulator(c); err != nil {
		return err
	}
	if c.ADBPath == "" {
		return nil
	}
	_, err := findADB(c)
	return err
}

// findADB returns the path of the adb that is configured.
func findADB(c *vm.Config) (string, error) {
	path, err := exec.LookPath(c.ADBPath)
	if err != nil {
		return "", errs.WithRemedy(errs.New(errs.NotFound, "adb cannot be run: %w", err), "set `vm config android-adb` to the path of the program")
	}
	return filepath.Abs(path)
}

// findEmulator returns the path of the emulator: the one configured, that of
// the SDK configured, or the first in $PATH.
func findEmulator(c *vm.Config) (string, error) {
	name, where := "emulator", "in $PATH"
	switch {
	case c.EmulatorPath != "":
		name, where = c.EmulatorPath, "as `vm config android-emulator` says"
	case c.SDKPath != "":
		name, where = filepath.Join(c.SDKPath, "emulator", "emulator"), "in the SDK that `vm config android-sdk` names"
	}
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return filepath.Abs(path)
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", errs.WithRemedy(errs.New(errs.NotFound, "Android emulator not found: there is no %s, %s", name, where),
			"install the SDK's emulator package, and set `vm config android-sdk` or `vm config android-emulator`")
	}
	return "", errs.New(errs.Permission, "the Android emulator cannot be run: %w", err)
}

// avdName is what avdmanager lets a name be.
var avdName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// checkAVD makes sure that the virtual device exists: a file <name>.ini that
// leads to a directory with config.ini.
func (e *Engine) checkAVD(c *vm.Config) error {
	if c.AVDName == "" {
		return errs.WithRemedy(errs.New(errs.Invalid, "no Android virtual device"), "set `vm config android-avd`")
	}
	if !avdName.MatchString(c.AVDName) || strings.HasPrefix(c.AVDName, "-") {
		return errs.New(errs.Invalid, "invalid AVD name: %q: letters, digits and ._- only, and no - first", c.AVDName)
	}
	home, err := e.avdHome(c)
	if err != nil {
		return err
	}
	ini, err := readINI(filepath.Join(home, c.AVDName+".ini"))
	if err != nil {
		return errs.WithRemedy(errs.New(errs.NotFound, "there is no Android virtual device %s in %s: %w", c.AVDName, home, err),
			"make it with avdmanager, or set `vm config android-avd-dir`")
	}
	dirs := []string{ini["path"]}
	if rel := ini["path.rel"]; rel != "" { // below the parent; taken when path has moved
		dirs = append(dirs, filepath.Join(filepath.Dir(home), rel))
	}
	for _, dir := range dirs {
		if st, err := os.Stat(filepath.Join(dir, "config.ini")); dir != "" && err == nil && st.Mode().IsRegular() {
			return nil
		}
	}
	return errs.WithRemedy(errs.New(errs.NotFound, "the Android virtual device %s has no config.ini in %s", c.AVDName, ini["path"]),
		"make it anew with avdmanager")
}

// avdHome is the directory of the virtual devices, by the emulator's own rules
// (https://developer.android.com/tools/variables).
func (e *Engine) avdHome(c *vm.Config) (string, error) {
	if c.AVDDir != "" {
		return filepath.Abs(c.AVDDir)
	}
	for _, v := range []struct{ name, below string }{{"ANDROID_AVD_HOME", ""}, {"ANDROID_USER_HOME", "avd"}} {
		if dir := os.Getenv(v.name); dir != "" {
			return filepath.Join(dir, v.below), nil
		}
	}
	home, err := e.home()
	return filepath.Join(home, ".android", "avd"), err
}

const maxINI = 64 << 10

// readINI reads a file of lines name=value.
func readINI(path string) (map[string]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxINI {
		return nil, fmt.Errorf("%s is no file of settings", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseINI(string(b)), nil
}

func parseINI(text string) map[string]string {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values
}

func checkPorts(c *vm.Config) error {
	if p := c.ConsoleBasePort; p != 0 && (p%2 != 0 || p < firstPort || p > lastPort) {
		return errs.New(errs.Invalid, "android-console-base-port: %d is not 0 or an even number from %d to %d", p, firstPort, lastPort)
	}
	taken, err := listening()
	if err != nil {
		return err
	}
	for port := range candidates(c.ConsoleBasePort) {
		if !taken[port] && !taken[port+1] {
			return nil
		}
	}
	return noPorts(c.ConsoleBasePort)
}

// reserved are the options that the engine gives itself.
var reserved = []string{"-avd", "-port", "-ports", "-stdouterr-file", "-qemu"}

func checkExtra(c *vm.Config) error {
	for _, a := range c.ExtraArgs {
		if slices.Contains(reserved, a) || strings.HasPrefix(a, "@") {
			return errs.New(errs.Invalid, "android-extra-args: minimega sets %s itself", a)
		}
	}
	return nil
}
