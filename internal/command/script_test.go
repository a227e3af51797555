package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scriptClient can read; its files directory is the second result.
func scriptClient(t *testing.T) (*client, string) {
	t.Helper()
	files := t.TempDir()
	var c *client
	c = newClient(t, Flags(), History(), Script(files, func(words []string) string { return c.runner.cli.Help(words) }))
	return c, files
}

func script(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.mm")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// expectLines compares what ran with `<namespace>: <line>`; `read` is the first.
func (c *client) expectLines(want ...string) {
	c.t.Helper()
	if got := strings.Join(c.runner.lines[1:], "\n"); got != strings.Join(want, "\n") {
		c.t.Errorf("ran:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestRead(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "# a comment", "", "  echo one", "fail", "echo two # three", "   ", "twice")
	out, bad := c.run(".headers false read " + path)
	if !strings.HasPrefix(out, "h1: one\nh1: two\nh0 ") || bad != "failed" {
		t.Errorf("got %q, %q", out, bad)
	}
	c.runner.lines = c.runner.lines[1:]
	c.expectLines("minimega: # a comment", "minimega: echo one", "minimega: fail", "minimega: echo two # three", "minimega: twice")
}

func TestReadStopsAtBadLine(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "echo one", "", "no such command", "echo two")
	out, bad := c.run("read " + path)
	if out != "h1: one" || !strings.HasPrefix(bad, "script.mm:3 invalid command: `no such command`") {
		t.Errorf("got %q, %q", out, bad)
	}
	_, bad = c.run("read " + script(t, `echo "open`))
	if bad != `script.mm:1 missing terminal "` {
		t.Errorf("got %q", bad)
	}
}

func TestReadCheck(t *testing.T) {
	c, _ := scriptClient(t)
	c.expect("read "+script(t, "echo one", "fail", "# x")+" check", "")
	c.expectLines()
	if _, bad := c.run("read " + script(t, "echo one", "bad line") + " check"); !strings.HasPrefix(bad, "script.mm:2 invalid command: `bad line`") {
		t.Errorf("got %q", bad)
	}
	c.refuse("read "+script(t, "echo one", ".sort false read x")+" check", "script.mm:2 cannot run nested `read` commands")
}

func TestReadNested(t *testing.T) {
	c, _ := scriptClient(t)
	inner := script(t, "echo inner")
	path := script(t, "read "+inner, ".sort true read "+inner, "echo after")
	out, bad := c.run("read " + path)
	if out != "h1: after" || bad != "cannot run nested `read` commands\ncannot run nested `read` commands" {
		t.Errorf("got %q, %q", out, bad)
	}
}

func TestReadNamespaces(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "echo 1", "namespace a", "echo 2", "namespace b echo 3", "echo 4", "namespace", "namespace minimega", "echo 5")
	c.run("read " + path)
	c.expectLines("minimega: echo 1", "minimega: namespace a", "a: echo 2", "a: namespace b echo 3", "b: echo 3", "a: echo 4",
		"a: namespace", ": namespace minimega", "minimega: echo 5")
}

// Under `namespace x read` the session stays where it is, the script does not.
func TestReadTagged(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "echo 1", "namespace minimega", "echo 2")
	c.run("namespace x read " + path)
	c.runner.lines = c.runner.lines[1:]
	c.expectLines("x: echo 1", "x: namespace minimega", "minimega: echo 2")
	if ns := c.session.Namespace(); ns != "minimega" {
		t.Errorf("session in %q", ns)
	}
}

func TestReadLeavesNamespace(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "clear namespace other", "echo 1", "clear namespace", "echo 2", "namespace y", "clear namespace y", "echo 3")
	c.run("namespace x read " + path)
	c.runner.lines = c.runner.lines[1:]
	c.expectLines("x: clear namespace other", "x: echo 1", "x: clear namespace", "minimega: echo 2", "minimega: namespace y",
		"y: clear namespace y", "minimega: echo 3")
}

// Flags that the script sets count for the lines after it, on top of those of
// the command that reads.
func TestReadFlags(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "echo 1", ".csv true", "rows")
	c.expect(".annotate false read "+path, "1\nid,name,tags\n9,a,{}\n10,b,\"[x, y]\"")
}

func TestReadFiles(t *testing.T) {
	c, files := scriptClient(t)
	if err := os.WriteFile(files+"/here.mm", []byte("echo found"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.expect("read here.mm", "h1: found")
	if _, bad := c.run("read nowhere.mm"); !strings.Contains(bad, "nowhere.mm: no such file") || strings.Contains(bad, files) {
		t.Errorf("got %q", bad)
	}
	if _, bad := c.run("read " + files); !strings.Contains(bad, "not an ordinary file") {
		t.Errorf("got %q", bad)
	}
	if _, bad := c.run("read /dev/zero"); !strings.Contains(bad, "not an ordinary file") {
		t.Errorf("got %q", bad)
	}
}

func TestReadLongLine(t *testing.T) {
	c, _ := scriptClient(t)
	path := script(t, "echo 1", "echo "+strings.Repeat("x", 64<<10))
	if out, bad := c.run("read " + path); out != "h1: 1" || bad != "script.mm:2 bufio.Scanner: token too long" {
		t.Errorf("got %q, %q", out, bad)
	}
}

// When the client has gone, the running line is the last.
func TestReadInterrupted(t *testing.T) {
	c, _ := scriptClient(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errClientGone)
	path := script(t, "# only a comment", "echo 1")
	if _, _, err := c.runCtx(ctx, "read "+path); err == nil {
		t.Error("the client is gone and nobody says so")
	}
	c.expectLines("minimega: # only a comment")
}

func TestReadQuit(t *testing.T) {
	c, _ := scriptClient(t)
	if _, _, err := c.runCtx(t.Context(), "read "+script(t, "echo 1", "bye", "echo 2")); err != ErrNoReply {
		t.Errorf("got %v", err)
	}
	c.expectLines("minimega: echo 1", "minimega: bye")
}

func TestEcho(t *testing.T) {
	c, _ := scriptClient(t)
	c.expect("echo", "")
	c.expect(`echo a  "b  c" # d`, "h1: a b  c")
}

func TestHelp(t *testing.T) {
	c, _ := scriptClient(t)
	c.expect("help nonsense here", "h1: no help entry for `nonsense here`")
	if out, _ := c.run("help echo"); !strings.HasPrefix(out, "h1: Usage:\n\techo [args]...\n\n") {
		t.Errorf("got %q", out)
	}
	if out, _ := c.run("help"); !strings.Contains(out, "clear history") {
		t.Errorf("got %q", out)
	}
}

func TestStatusUpdates(t *testing.T) {
	c, _ := scriptClient(t)
	c.expect("status updates", "h1: status update frequency: 3s")
	c.expect("status updates 500ms", "")
	c.expect("status updates", "h1: status update frequency: 500ms")
	c.expect("status updates 0", "")
	c.expect("status updates", "h1: status updates disabled")
	c.refuse("status updates soon", "invalid frequency duration provided")
	c.refuse("status updates -1s", "invalid frequency duration provided")
}
