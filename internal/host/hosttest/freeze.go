package hosttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Freeze stops a process (SIGSTOP) and waits until all of its threads have
// stopped: until then those that run on other processors still answer.
func Freeze(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	for end := time.Now().Add(time.Minute); !stopped(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

func stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that has ended
		}
		// The state follows the name, which is in parentheses: proc_pid_stat(5).
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if !strings.HasPrefix(rest, " T") {
			return false
		}
	}
	return len(stats) > 0
}
