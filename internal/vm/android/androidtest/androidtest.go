// Package androidtest has a stand-in for the Android emulator, built from
// source, and makes SDKs and virtual devices for it in tests.
package androidtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

const program = "minimega/internal/vm/android/androidtest/emulator"

// SDK is an Android SDK and a home directory, for one test.
type SDK struct {
	Dir  string // holds emulator/emulator
	Home string // holds the virtual devices and the console's token
}

// AVDs is the directory of the virtual devices.
func (s *SDK) AVDs() string { return filepath.Join(s.Home, ".android", "avd") }

// Emulator is the path of the stand-in.
func (s *SDK) Emulator() string { return filepath.Join(s.Dir, "emulator", "emulator") }

// New makes an SDK with the stand-in as its emulator, and no devices.
func New(t testing.TB) *SDK {
	t.Helper()
	s := &SDK{Dir: t.TempDir(), Home: t.TempDir()}
	built, err := build()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.Emulator()), 0o755)
	}
	if err == nil {
		err = os.MkdirAll(s.AVDs(), 0o755)
	}
	if err == nil {
		err = os.WriteFile(s.Emulator(), built, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// AVD makes a virtual device. standin is how the stand-in behaves as that
// device, "" for well.
func (s *SDK) AVD(t testing.TB, name, standin string) {
	t.Helper()
	dir := filepath.Join(s.AVDs(), name+".avd")
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.ini"), fmt.Appendf(nil, "AvdId=%s\nstandin=%s\n", name, standin), 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(s.AVDs(), name+".ini"),
			fmt.Appendf(nil, "avd.ini.encoding=UTF-8\npath=%s\npath.rel=avd/%s.avd\ntarget=android-34\n", dir, name), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// build compiles the stand-in once per test program.
var build = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "emulator")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "emulator")
	if err := Build(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// Build compiles the stand-in to a path.
func Build(path string) error {
	cmd := exec.Command("go", "build", "-o", path, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the stand-in emulator: %w: %s", err, out)
	}
	return nil
}
