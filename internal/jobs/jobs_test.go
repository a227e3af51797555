package jobs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func table(t *testing.T) *Table {
	t.Helper()
	tab := New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { tab.Close() })
	return tab
}

// until polls for a condition that another process brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func finished(t *testing.T, tab *Table, id int) Job {
	t.Helper()
	var j Job
	until(t, "job ends", func() bool {
		var err error
		if j, err = tab.Job(id); err != nil {
			t.Fatal(err)
		}
		return !j.Running
	})
	return j
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestRun(t *testing.T) {
	tab := table(t)
	out, errOut, err := tab.Run(t.Context(), []string{"sh", "-c", "echo a; echo b >&2"})
	if out != "a\n" || errOut != "b\n" || err != nil {
		t.Errorf("got %q, %q, %v", out, errOut, err)
	}
	if _, _, err = tab.Run(t.Context(), []string{"sh", "-c", "exit 3"}); fmt.Sprint(err) != "exit status 3" {
		t.Errorf("got %v", err)
	}
	want := `exec: "no-such-program": executable file not found in $PATH`
	if _, _, err = tab.Run(t.Context(), []string{"no-such-program"}); fmt.Sprint(err) != want {
		t.Errorf("got %v, want %v", err, want)
	}
	if out, _, err = tab.Run(t.Context(), []string{"echo", "$HOME;", "`id`"}); out != "$HOME; `id`\n" || err != nil {
		t.Errorf("a shell got at the words: %q, %v", out, err)
	}
}

// The whole group of a cancelled command goes, children included.
func TestRunCancelled(t *testing.T) {
	tab := table(t)
	file := t.TempDir() + "/pid"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := tab.Run(ctx, []string{"sh", "-c", "sleep 600 & echo $! > " + file + "; wait"})
		done <- err
	}()
	var pid int
	until(t, "the child starts", func() bool {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	cancel()
	if err := <-done; fmt.Sprint(err) != "sh: interrupted" {
		t.Errorf("got %v", err)
	}
	until(t, "the child dies", func() bool { return !alive(pid) })
}

// A child that is left behind with our pipe does not hold the caller, and
// lives on: what it writes is read.
func TestRunLeavesChild(t *testing.T) {
	tab := table(t)
	file := t.TempDir() + "/wrote"
	start := time.Now()
	out, _, err := tab.Run(t.Context(), []string{"sh", "-c", "(sleep 3; echo late; echo > " + file + "; exec sleep 600) & echo $!"})
	if err != nil || time.Since(start) > 60*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }()
	until(t, "the child writes", func() bool { _, err := os.Stat(file); return err == nil })
	if !alive(pid) {
		t.Error("the child is dead")
	}
}

func TestOutputBound(t *testing.T) {
	tab := table(t)
	out, _, err := tab.Run(t.Context(), []string{"head", "-c", strconv.Itoa(MaxOutput + 10), "/dev/zero"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "\n[output truncated: 10 more bytes]"; !strings.HasSuffix(out, want) || len(out) != MaxOutput+len(want) {
		t.Errorf("%d bytes kept, ending %q", len(out), out[max(0, len(out)-40):])
	}
}

func TestBackground(t *testing.T) {
	tab := table(t)
	id, err := tab.Start([]string{"sh", "-c", "echo out; echo err >&2; exit 2"})
	if err != nil || id != 1 {
		t.Fatalf("id %d, %v", id, err)
	}
	j := finished(t, tab, id)
	if j.Error != "exit status 2" || j.PID <= 0 || j.Start.IsZero() || j.End.Before(j.Start) || j.CommandLine() != "sh -c echo out; echo err >&2; exit 2" {
		t.Errorf("got %+v", j)
	}
	if o, e, err := tab.Output(id); o != "out\n" || e != "err\n" || err != nil {
		t.Errorf("got %q, %q, %v", o, e, err)
	}
	if _, _, err := tab.Output(7); fmt.Sprint(err) != "provided id does not exist in background process table" {
		t.Errorf("got %v", err)
	}
	if n := tab.Clear(); n != 1 || len(tab.List()) != 0 {
		t.Errorf("cleared %d, left %v", n, tab.List())
	}
}

func TestOutputOfRunningJob(t *testing.T) {
	tab := table(t)
	id, err := tab.Start([]string{"sleep", "600"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tab.Output(id); fmt.Sprint(err) != "wait for process to finish before reading output" {
		t.Errorf("got %v", err)
	}
	if n := tab.Clear(); n != 0 {
		t.Errorf("cleared %d running jobs", n)
	}
	pid := tab.List()[0].PID
	tab.Close()
	if alive(pid) {
		t.Error("Close left the process")
	}
	if _, err := tab.Start([]string{"true"}); err == nil {
		t.Error("a closed table starts processes")
	}
}

// A process that left its group keeps the pipe open; Close does not wait for it.
func TestCloseWithEscapedChild(t *testing.T) {
	tab := table(t)
	file := t.TempDir() + "/pid"
	if _, err := tab.Start([]string{"setsid", "sh", "-c", "echo $$ > " + file + ".new; mv " + file + ".new " + file + "; exec sleep 600"}); err != nil {
		t.Fatal(err)
	}
	var pid int
	until(t, "the child starts", func() bool {
		b, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		return pid > 0
	})
	tab.Close()
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestTableIsBounded(t *testing.T) {
	tab := table(t)
	for range MaxFinished + 3 {
		id, err := tab.Start([]string{"true"})
		if err != nil {
			t.Fatal(err)
		}
		finished(t, tab, id)
	}
	list := tab.List()
	if len(list) != MaxFinished+1 || list[0].ID != 3 {
		t.Errorf("%d jobs, first %d", len(list), list[0].ID)
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestOutputIsLogged(t *testing.T) {
	var b syncBuffer
	tab := New(slog.New(slog.NewTextHandler(&b, nil)))
	defer tab.Close()
	long := strings.Repeat("x", maxLine+5)
	id, err := tab.Start([]string{"printf", "one\ntwo\n" + long})
	if err != nil {
		t.Fatal(err)
	}
	finished(t, tab, id)
	got := b.String()
	for _, want := range []string{"msg=one job=1 stream=stdout", "msg=two ", "msg=" + long[:maxLine] + " ", "msg=xxxxx "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %.60q in the log", want)
		}
	}
	if o, _, _ := tab.Output(id); o != "one\ntwo\n"+long {
		t.Errorf("the log ate output: %d bytes", len(o))
	}
}
