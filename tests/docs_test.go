package tests

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"minimega/internal/doc"
	"minimega/internal/guest"
)

var update = flag.Bool("update", false, "write docs/reference.md anew")

// The reference is what the program says of itself.
func TestReference(t *testing.T) {
	dump, err := exec.Command(program, "-cli").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := doc.Reference(dump)
	if err != nil {
		t.Fatal(err)
	}
	const path = "../docs/reference.md"
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/reference.md is not what the program says: run `make docs`")
	}
}

var links = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// Links between pages lead somewhere.
func TestLinks(t *testing.T) {
	pages, _ := filepath.Glob("../docs/*.md")
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range links.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
}

// block is a fenced piece of a page.
type block struct{ lang, text string }

func blocks(page string) []block {
	var bs []block
	var cur *block
	for line := range strings.Lines(page) {
		fence, ok := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case ok && cur == nil:
			cur = &block{lang: fence}
		case ok:
			bs = append(bs, *cur)
			cur = nil
		case cur != nil:
			cur.text += line
		}
	}
	return bs
}

// What stands in the docs runs as written: `minimega` blocks at the prompt of a
// daemon, `sh` blocks in a shell beside it. A page starts with a daemon of its
// own; /tmp/minimega in it is that daemon's base.
func TestDocsRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, taps")
	}
	if _, err := guest.FindKernel(); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"tutorial.md", "howto.md", "clients.md", "images.md"} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(filepath.Join("../docs", page))
			if err != nil {
				t.Fatal(err)
			}
			work := t.TempDir()
			h, err := newHost(work)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				for _, left := range h.close() {
					t.Errorf("left behind: %s", left)
				}
			}()
			if err := errors.Join(passable(work), passable(filepath.Dir(program))); err != nil { // some is done as another user
				t.Fatal(err)
			}
			base := filepath.Join(work, "base")
			log := filepath.Join(work, "daemon.log")
			if err := h.start(base, log, work, nil); err != nil {
				out, _ := os.ReadFile(log)
				t.Fatalf("%v\n%s", err, out)
			}
			for _, b := range blocks(string(text)) {
				script := strings.ReplaceAll(b.text, "/tmp/minimega", base)
				switch b.lang {
				case "sh":
					runShell(t, h, work, base, script)
				case "minimega":
					runMinimega(t, base, work, script)
				}
			}
		})
	}
}

func runShell(t *testing.T, h *host, work, base, script string) {
	t.Helper()
	c := h.command("bash", "-euc", script)
	c.Dir = work
	// `minimega` in a page means the daemon of this test.
	bin := filepath.Join(work, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\ncase \"$1\" in guest|completion|demo) exec " + program + " \"$@\";; esac\nexec " + program + " -base " + base + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "minimega"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
}

func runMinimega(t *testing.T, base, work, script string) {
	t.Helper()
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		c := exec.Command(program, "-base", base, "-strict", "-e", line)
		c.Dir = work
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s\n%v\n%s", line, err, out)
		}
	}
}
