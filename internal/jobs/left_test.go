package jobs

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"minimega/internal/journal"
)

// What a table leaves that was killed is named by the next one, and ended when it
// is told to; what has ended, or is another by now, is not touched.
func TestDiscard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "background")
	log := slog.New(slog.DiscardHandler)
	first := Open(dir, log)
	t.Cleanup(func() { first.Close() })
	start := func(args ...string) Job {
		t.Helper()
		id, err := first.Start(args)
		if err != nil {
			t.Fatal(err)
		}
		j, err := first.Job(id)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	runs, quits := start("sleep", "300"), start("true")
	finished(t, first, quits.ID)
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("%d entries for one process that runs, %v", len(left), err)
	}
	for _, s := range []saved{{PID: os.Getpid(), Began: "another boot 1", Command: []string{"not", "us"}}, {PID: 1, Command: []string{"init"}}, {PID: -1, Began: "x"}} {
		if _, err := journal.Open(dir).Add(s); err != nil {
			t.Fatal(err)
		}
	}

	second := Open(dir, log)
	t.Cleanup(func() { second.Close() })
	want := []string{fmt.Sprintf("background process %d (sleep 300)", runs.PID)}
	if got, err := second.Left(); !slices.Equal(got, want) || err != nil {
		t.Errorf("left: %q, %v", got, err)
	}
	if !alive(runs.PID) {
		t.Fatal("asking ended it")
	}
	if got, err := second.Discard(); !slices.Equal(got, want) || err != nil {
		t.Errorf("ended: %q, %v", got, err)
	}
	if j := finished(t, first, runs.ID); j.Error != "signal: killed" {
		t.Errorf("it ended with %q", j.Error)
	}
	if got, err := second.Discard(); len(got) != 0 || err != nil {
		t.Errorf("again: %q, %v", got, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the journal is left")
	}
}

// A table that ends well leaves nothing.
func TestCloseLeavesNoNote(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "background")
	tab := Open(dir, slog.New(slog.DiscardHandler))
	if _, err := tab.Start([]string{"sleep", "300"}); err != nil {
		t.Fatal(err)
	}
	if err := tab.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the journal is left")
	}
}
