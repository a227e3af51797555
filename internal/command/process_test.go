package command

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"minimega/internal/jobs"
)

func processClient(t *testing.T) *client {
	tab := jobs.New(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { tab.Close() })
	return newClient(t, Process(tab), Flags())
}

func TestShell(t *testing.T) {
	c := processClient(t)
	c.expect("shell echo hello world", "h1: hello world")
	c.refuse("shell no-such-program x", `exec: "no-such-program": executable file not found in $PATH`)
	if out, bad := c.run(`shell sh -c "echo out; echo err >&2"`); out != "h1: out" || bad != "err\n" || c.batches[0].Resps[0].Response != "out\n" {
		t.Errorf("got %q, %q", out, bad)
	}
	if out, bad := c.run(`shell sh -c "echo out; exit 4"`); out != "" || bad != "exit status 4" || c.batches[0].Resps[0].Response != "" {
		t.Errorf("got %q, %q", out, bad)
	}
}

func TestShellInterrupted(t *testing.T) {
	c := processClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	begun := filepath.Join(t.TempDir(), "begun")
	go func() {
		defer cancel()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			if _, err := os.Stat(begun); err == nil {
				return
			}
		}
	}()
	start := time.Now()
	if _, bad, _ := c.runCtx(ctx, `shell sh -c "echo > `+begun+`; exec sleep 600"`); bad != "sh: interrupted" || time.Since(start) > 2*time.Minute {
		t.Errorf("%q after %v", bad, time.Since(start))
	}
}

func TestBackground(t *testing.T) {
	c := processClient(t)
	c.expect(`background sh -c "echo out; echo err >&2; exit 1"`, "h1: Started background process with id 1")
	c.expect("background sleep 600", "h1: Started background process with id 2")
	c.refuse("background no-such-program", `exec: "no-such-program": executable file not found in $PATH`)
	c.refuse("background-output 2", "wait for process to finish before reading output")
	c.refuse("background-output 3", "provided id does not exist in background process table")
	c.refuse("background-status 3", "provided id does not exist in background process table")
	c.refuse("background-error x", `strconv.Atoi: parsing "x": invalid syntax`)
	deadline := time.Now().Add(time.Minute)
	for {
		out, _ := c.run(".csv true .annotate false .headers false .columns running background-status 1")
		if out == "false" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %q", out)
		}
		time.Sleep(5 * time.Millisecond)
	}
	c.expect("background-output 1", "h1: out")
	c.expect("background-error 1", "h1: err")
	out, _ := c.run(".csv true .annotate false background-status")
	when := `[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+`
	want := `^ID,PID,RUNNING,ERROR,TIME_START,TIME_END,COMMAND\n` +
		`1,\d+,false,exit status 1,` + when + `,` + when + `,sh -c echo out; echo err >&2; exit 1\n` +
		`2,\d+,true,,` + when + `,,sleep 600$`
	if !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("got %q", out)
	}
	c.expect("clear background-status", "h1: Cleared 1 elements from background-status")
	if out, _ := c.run("background-status"); strings.Count(out, "\n") != 1 {
		t.Errorf("got %q", out)
	}
}
