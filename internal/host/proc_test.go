package host

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func sh(t *testing.T, script string, out *os.File) *Proc {
	t.Helper()
	p, err := StartProc(ProcSpec{Path: "/bin/sh", Args: []string{"-c", script}, Output: out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Signal(syscall.SIGKILL)
		_ = p.Close()
	})
	return p
}

func waitProc(t *testing.T, p *Proc) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("process does not end")
	}
}

func TestProcStatus(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, c := range []struct {
		script, want string
		ok           bool
	}{
		{"exit 0", "exit status 0", true},
		{"exit 3", "exit status 3", false},
		{"kill -9 $$", "killed by signal 9 (killed)", false},
	} {
		p := sh(t, c.script, nil)
		waitProc(t, p)
		if s := p.Status(); s.String() != c.want || s.OK() != c.ok {
			t.Errorf("%q: %v, ok %v", c.script, s, s.OK())
		}
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("signal after the end: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestProcInheritsNothing(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := sh(t, "ls /proc/self/fd; cat /proc/self/stat | cut -d' ' -f6; echo $$; read x || echo eof", f)
	waitProc(t, p)
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(b))
	// 3 is the directory that ls itself reads.
	if len(got) != 7 || strings.Join(got[:4], " ") != "0 1 2 3" || got[4] != got[5] || got[6] != "eof" {
		t.Errorf("descriptors, session, pid, stdin: %q", got)
	}
}

func TestProcKillAndClose(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := sh(t, "exec sleep 1000", nil)
	q, err := AdoptProc(p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	idle, err := AdoptProc(p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Close(); err != nil { // while it runs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := q.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	waitProc(t, p)
	if p.Status().Signal != syscall.SIGKILL || q.Status().Known {
		t.Errorf("status %v, adopted %v", p.Status(), q.Status())
	}
	for _, x := range []*Proc{p, q} {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestProcMissing(t *testing.T) {
	if _, err := StartProc(ProcSpec{Path: "/nonexistent/x"}); err == nil || !strings.Contains(err.Error(), "/nonexistent/x") {
		t.Errorf("got %v", err)
	}
	c := exec.Command("/bin/true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := AdoptProc(c.Process.Pid); err == nil {
		t.Error("adopted a process that has ended")
	}
}
