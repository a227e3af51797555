// Package guesttest boots the built-in guest in tests: Kernel and Initrd name
// the files, Start runs a guest under QEMU (TCG) and talks to it.
package guesttest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"minimega/internal/guest"
	"minimega/internal/guest/initrd"
)

// initPackage is the guest alone as a program.
const initPackage = "minimega/internal/guest/guesttest/testdata/init"

// Kernel returns the path of a kernel for QEMU's -kernel. A machine without
// one fails the test and says what to do.
func Kernel(t testing.TB) string {
	t.Helper()
	return FindKernel(t).Path
}

// FastKernel returns the path of a kernel that boots in half the time, but
// leaves the guest without a console on the screen.
func FastKernel(t testing.TB) string {
	t.Helper()
	return FindKernel(t).Fast()
}

// FindKernel is guest.FindKernel for tests.
func FindKernel(t testing.TB) guest.Kernel {
	t.Helper()
	k, err := guest.FindKernel()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Init returns the path of a small static program that is guest.Main. It is
// built once per test program, into a cache like the go command's own.
func Init(t testing.TB) string {
	t.Helper()
	path, err := builtInit()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Initrd returns the path of an initrd for Kernel with the default drivers,
// kept in the same cache.
func Initrd(t testing.TB) string {
	t.Helper()
	k, binary := FindKernel(t), Init(t)
	sum := sha256.Sum256([]byte(binary + k.Path + k.Version))
	path := filepath.Join(filepath.Dir(binary), "initrd-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if _, err := initrd.WriteFile(path, initrd.Options{Binary: binary, ModulesDir: k.ModulesDir}); err != nil {
		t.Fatal(err)
	}
	return path
}

var builtInit = sync.OnceValues(buildInit)

func buildInit() (string, error) {
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "build-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	made := filepath.Join(tmp, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", made, initPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the guest's init: %w\n%s", err, out)
	}
	sum, err := hashFile(made)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "init-"+sum)
	return path, os.Rename(made, path) // tests of other packages may do the same
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// cacheDir returns the user's cache of guest files, without those of old
// builds.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "minimega-guesttest")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return "", err
	}
	for _, f := range old {
		if st, err := os.Stat(f); err == nil && time.Since(st.ModTime()) > 24*time.Hour {
			os.RemoveAll(f)
		}
	}
	return dir, nil
}
