package inject

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/host"
)

// asChild is set in a process that only injects: IMAGE=FILE.
const asChild = "INJECT_TEST_CHILD"

// TestKilled kills a process in the middle of its work, again and again: the
// image stays as it was (or has all of it), nothing runs or is mounted any more, and the next
// injection works.
func TestKilled(t *testing.T) {
	if job := os.Getenv(asChild); job != "" {
		image, file, _ := strings.Cut(job, "=")
		fmt.Println(Run(context.Background(), Request{Image: image, Partition: Whole, Put: []Pair{{file, "/big"}}}, quiet))
		return
	}
	for _, kind := range []string{"ext4", "ntfs"} {
		t.Run(kind, func(t *testing.T) { killed(t, kind) })
	}
}

func killed(t *testing.T, kind string) {
	mkfs, err := host.FindProgram("mkfs." + kind)
	if err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and mkfs." + kind)
	}
	image := filepath.Join(newDir(t), "disk.img")
	run(t, "truncate", "-s", "96M", image)
	run(t, mkfs, "-q", "-F", image)
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	before := sum(t, image)
	for _, after := range []time.Duration{0, 40, 80, 120, 180, 250, 350, 500} {
		c := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		c.Env = append(os.Environ(), asChild+"="+image+"="+big)
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after*time.Millisecond, func() { _ = c.Process.Kill() })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			if !strings.HasPrefix(out.String(), "<nil>") {
				t.Fatal(out.String())
			}
			break // it was done before
		}
		nothingRuns(t, filepath.Dir(image))
		if now := sum(t, image); now != before { // killed while qemu-img finished the work
			complete(t, kind, image)
			before = now
		}
	}
	if err := Run(t.Context(), Request{Image: image, Partition: Whole, Put: []Pair{{big, "/again"}}}, quiet); err != nil && !strings.Contains(err.Error(), "full") {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(image)); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// complete makes sure that the file is there, as a whole.
func complete(t *testing.T, kind, image string) {
	t.Helper()
	if kind == "ntfs" {
		if out := run(t, "ntfscat", "-f", image, "/big"); len(out) < 64<<20 {
			t.Fatalf("%d bytes of the file are there", len(out))
		}
		return
	}
	for program, args := range map[string][]string{"e2fsck": {"-fn", image}, "debugfs": {"-R", "stat /big", image}} {
		path, err := host.FindProgram(program)
		if err != nil {
			t.Fatal(err)
		}
		if out := run(t, path, args...); program == "debugfs" && !strings.Contains(out, "Size: 67108864") {
			t.Fatal(out)
		}
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// nothingRuns waits until no process mentions a directory.
func nothingRuns(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		left := ""
		paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, p := range paths {
			if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(dir+"/")) {
				left = string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
			}
		}
		if left == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("still runs: %s", left)
		}
	}
}
