package android

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// TestAdopt lets go of a machine and takes it over, as the next daemon would.
func TestAdopt(t *testing.T) {
	ctx := within(t, time.Minute)
	w := newWorld(t, "", Options{})
	s := w.spec(t)
	made, err := w.Launch(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	pid := made.Pid()
	defer func() { // it stays our child
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	if err := errors.Join(made.Start(ctx), made.Close()); err != nil {
		t.Fatal(err)
	}
	port, _ := made.(*Machine).Ports()
	// Until it is adopted, its ports are nobody else's.
	if c, err := claimPorts(uint64(port)); err != nil || c.port == port {
		t.Errorf("claimed %+v, %v", c, err)
	} else {
		c.release()
	}
	for _, other := range []int{os.Getpid(), sleeper(t, "-stdouterr-file", filepath.Join(s.Dir, logName), "-port", "80")} {
		if _, err := w.Adopt(ctx, s, other); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "find emulator: process") {
			t.Errorf("adopted another process: %v", err)
		}
	}
	again, err := w.Adopt(ctx, s, pid)
	if err != nil {
		t.Fatal(err)
	}
	m := again.(*Machine)
	if s, err := m.Status(ctx); err != nil || s != vm.Running {
		t.Errorf("adopted: %v, %v", s, err)
	}
	if got, _ := m.Ports(); got != port {
		t.Errorf("adopted on port %d, was %d", got, port)
	}
	if err := m.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if err := errors.Join(m.Err(), m.Close()); err != nil {
		t.Error(err)
	}
	if _, err := w.Adopt(ctx, s, pid); !errors.Is(err, errs.NotFound) {
		t.Errorf("adopted the dead: %v", err)
	}
}

// TestRemains tells an ordinary end from another by the log alone.
func TestRemains(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "INFO         | bye\n": "", "WARNING      | low memory\nERROR        | gone\nINFO | x\n": "the emulator ended while no minimega ran: WARNING      | low memory; ERROR        | gone",
		"ERROR        | no GPU\nWARNING      | none needed\n": "",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, logName), text, 0o600)
		got := ""
		if err := New(Options{}).Remains(dir); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// sleeper starts a process with words on its command line.
func sleeper(t *testing.T, words ...string) (pid int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", "read x", "sh"}, words...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = in.Close()
		_ = cmd.Wait() // killed
	})
	return cmd.Process.Pid
}
