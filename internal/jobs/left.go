package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"minimega/internal/errs"
	"minimega/internal/journal"
)

// saved is what the journal knows of a background process.
type saved struct {
	PID     int
	Began   string // tells the process from a later one with its number
	Command []string
}

// Open makes a table whose background processes a later one can end: each that
// runs has an entry in the journal at dir.
func Open(dir string, log *slog.Logger) *Table {
	t := New(log)
	t.journal = journal.Open(dir)
	return t
}

// note writes the journal's entry of a process that runs.
func (t *Table) note(j *job) {
	if t.journal == nil {
		return
	}
	began, err := began(j.PID)
	if err == nil {
		j.entry, err = t.journal.Add(saved{j.PID, began, j.Command})
	}
	if err != nil {
		t.log.Warn("a background process will not be known to a later minimega", "job", j.ID, "err", err)
	}
}

// Left names the background processes of an earlier table that run on, a line
// each. They have lost their output. It must come before the first Start.
func (t *Table) Left() ([]string, error) {
	return t.left(func(saved, *journal.Entry) error { return nil })
}

// Discard ends the process groups of those, and returns a line for each. It
// must come before the first Start, or after Close.
func (t *Table) Discard() ([]string, error) {
	return t.left(func(s saved, e *journal.Entry) error {
		if err := end(s); err != nil {
			return err
		}
		return e.Remove()
	})
}

// left does something with each process of the journal that runs, and forgets
// the others.
func (t *Table) left(do func(saved, *journal.Entry) error) ([]string, error) {
	entries, err := t.journal.Entries()
	failed := []error{err}
	var lines []string
	for _, e := range entries {
		var s saved
		if e.Read(&s) != nil || !s.runs() {
			failed = append(failed, e.Remove())
			continue
		}
		if err := do(s, e); err != nil {
			failed = append(failed, err)
			continue
		}
		lines = append(lines, fmt.Sprintf("background process %d (%s)", s.PID, strings.Join(s.Command, " ")))
	}
	return lines, errors.Join(failed...)
}

// runs reports whether the process is there.
func (s saved) runs() bool {
	if s.PID <= 1 || s.Began == "" {
		return false
	}
	now, err := began(s.PID)
	return err == nil && now == s.Began
}

// endTime is how long a killed process may take to go.
const endTime = 5 * time.Second

// end kills the group of a process, which is not our child, and returns when the
// process has gone.
func end(s saved) error {
	if err := syscall.Kill(-s.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("background process %d: %w", s.PID, err)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(endTime); s.runs(); <-tick.C {
		if time.Now().After(until) {
			return errs.New(errs.State, "background process %d (%s) does not end", s.PID, strings.Join(s.Command, " "))
		}
	}
	return nil
}

// began tells when a process that has not ended began: in which life of the
// machine, and at which tick of it; see proc(5), stat.
func began(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before may hold anything
	const state, start = 0, 19
	if len(fields) <= start || bytes.ContainsAny(fields[state], "ZX") {
		return "", os.ErrProcessDone
	}
	return string(bytes.TrimSpace(boot)) + " " + string(fields[start]), nil
}
