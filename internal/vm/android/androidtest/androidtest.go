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

// New makes an SDK for one test, with the stand-in as its emulator, and no
// devices.
func New(t testing.TB) *SDK {
	t.Helper()
	s, err := Make(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Make makes an SDK in two directories.
func Make(dir, home string) (*SDK, error) {
	s := &SDK{Dir: dir, Home: home}
	built, err := build()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{filepath.Dir(s.Emulator()), s.AVDs()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return s, os.WriteFile(s.Emulator(), built, 0o755)
}

// AVD makes a virtual device. standin is how the stand-in behaves as that
// device, "" for well.
func (s *SDK) AVD(name, standin string) error {
	dir := filepath.Join(s.AVDs(), name+".avd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config := fmt.Sprintf("AvdId=%s\nstandin=%s\n", name, standin)
	if err := os.WriteFile(filepath.Join(dir, "config.ini"), []byte(config), 0o644); err != nil {
		return err
	}
	ini := fmt.Sprintf("avd.ini.encoding=UTF-8\npath=%s\npath.rel=avd/%s.avd\ntarget=android-34\n", dir, name)
	return os.WriteFile(filepath.Join(s.AVDs(), name+".ini"), []byte(ini), 0o644)
}

// build compiles the stand-in once per test program.
var build = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "emulator")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "emulator")
	cmd := exec.Command("go", "build", "-o", path, program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the stand-in emulator: %w: %s", err, out)
	}
	return os.ReadFile(path)
})
