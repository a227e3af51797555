package statefile

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLatestStateSurvivesClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	var n, renders atomic.Int64
	f := New(path, func() []byte {
		renders.Add(1)
		return fmt.Appendf(nil, "%d\n", n.Load())
	}, slog.Default())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				n.Add(1)
				f.Changed()
			}
		})
	}
	wg.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "4000\n" {
		t.Fatalf("file holds %q", got)
	}
	if err := f.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	f.Changed()
	if err := f.Flush(); err == nil {
		t.Fatal("Flush after Close succeeded")
	}
}

func TestFailureIsToldAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.Mkdir(path, 0o700); err != nil { // a directory cannot be replaced by a file
		t.Fatal(err)
	}
	f := New(path, func() []byte { return []byte("x") }, slog.Default())
	if err := f.Flush(); err == nil {
		t.Fatal("Flush onto a directory succeeded")
	}
	if err := f.Close(); err == nil {
		t.Fatal("Close lost the error")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Fatalf("left: %v %v", left, err)
	}
}
