package host_test

import (
	"os"
	"path/filepath"
	"testing"

	"minimega/internal/host"
	"minimega/internal/host/hosttest"
)

// A lock is free once its file is closed, whatever processes are started
// meanwhile, and taken before.
func TestClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	claim := func() (*os.File, bool) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		got, err := host.Claim(f, host.ClaimTime)
		if err != nil {
			t.Fatal(err)
		}
		return f, got
	}
	stop := hosttest.Forks(t)
	for range 300 {
		f, got := claim()
		if !got {
			t.Fatal("a lock that nobody has is not to be had")
		}
		f.Close()
	}
	stop()
	first, _ := claim()
	second, got := claim()
	if got {
		t.Error("two have the lock")
	}
	first.Close()
	second.Close()
}
