package tests

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/pkg/miniclient"
)

// A QEMU that was stopped by a signal when its daemon was killed does not answer
// the next one: the VM is there as it was, said to be silent, and refuses what
// QEMU would have to do. It is driven again once QEMU goes on.
func TestStoppedMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, taps")
	}
	h := scratchHost(t)
	base := filepath.Join(h.work, "base")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ask := func(command string) (string, error) {
		c, err := miniclient.Dial(ctx, base)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answer, err := c.Do(ctx, command)
		if len(answer) == 0 && err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return answer[0].Rendered, err
	}
	do := func(command string) string {
		t.Helper()
		text, err := ask(command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return text
	}
	start := func(log string) {
		t.Helper()
		if err := h.start(base, filepath.Join(h.work, log), h.work, nil); err != nil {
			t.Fatal(err)
		}
	}
	const row = ".annotate false .headers false .columns name,state,pid,mac,tap,tags vm info"

	start("first.log")
	for _, command := range []string{"vm config memory 32", "vm config net office", "vm launch kvm a", "vm start a"} {
		do(command)
	}
	before := do(row)
	pid, err := strconv.Atoi(strings.TrimSpace(strings.Split(before, "|")[2]))
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Freeze(t, pid)
	defer syscall.Kill(pid, syscall.SIGCONT) // else nobody could end it but by force
	crash(h)

	start("second.log")
	silent := do(row)
	if same, _, _ := strings.Cut(before, "{"); !strings.HasPrefix(silent, same) || !strings.Contains(silent, "QEMU does not answer; still trying") {
		t.Errorf("it was %s, and is %s", before, silent)
	}
	if why := do("vm why a"); !strings.Contains(why, "QEMU does not answer") {
		t.Errorf("vm why: %s", why)
	}
	if _, err := ask("vm stop a"); err == nil || !strings.Contains(err.Error(), "does not answer; still trying") {
		t.Errorf("vm stop: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !soon(func() bool { return do(row) == before }) {
		t.Errorf("it was %s, and is %s", before, do(row))
	}
	do("vm stop a")
	if text := do(`vm qmp a '{ "execute": "query-status" }'`); !strings.Contains(text, "paused") {
		t.Errorf("stopped: %s", text)
	}
}
