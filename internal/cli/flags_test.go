package cli

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The defaults that scripts and clients rely on.
func TestDefaults(t *testing.T) {
	header, rows := config(t).Table()
	got := map[string]string{}
	for i, name := range header {
		got[name] = rows[0][i]
	}
	want := map[string]string{
		"abssnapshot": "false", "attach": "false", "base": "/tmp/minimega", "broadcast": "255.255.255.255",
		"cgroup": "/sys/fs/cgroup", "cli": "false", "context": "minimega", "degree": "0", "e": "false",
		"filepath": "/tmp/minimega/files", "force": "false", "group": "", "hashfiles": "false", "headnode": "", "json": "false",
		"level": "error", "logfile": "", "mesh-dial": "", "mesh-key": "", "mesh-open": "false", "msa": "10", "namespace": "", "nostdin": "false", "panic": "false",
		"pipe": "", "port": "9000", "rate": "0", "recover": "false", "strict": "false", "v": "true", "verbose": "true",
		"version": "false", "vlanrange": "101-4096", "vnc-listen": "127.0.0.1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !slices.IsSorted(header) || len(rows) != 1 {
		t.Errorf("%v, %d rows", header, len(rows))
	}
}

func TestForms(t *testing.T) {
	c := config(t, "--base", "/b", "-level=debug", "--nostdin", "-degree=3", "-vlanrange", "200-300", "-verbose=false", "-e", "vm", "-info")
	if c.Base != "/b" || c.FilePath != "/b/files" || c.Level != "debug" || !c.NoStdin || c.Degree != 3 || c.VLANMin != 200 ||
		c.VLANMax != 300 || c.Verbose || !c.Exec || !slices.Equal(c.Args, []string{"vm", "-info"}) {
		t.Errorf("%+v", c)
	}
	if header, rows := c.Table(); rows[0][slices.Index(header, "filepath")] != "/b/files" {
		t.Errorf("the table says %q", rows[0])
	}
	if c := config(t, "-base", "/b", "-filepath", "/f"); c.FilePath != "/f" {
		t.Errorf("-filepath is %q", c.FilePath)
	}
}

func TestBadFlags(t *testing.T) {
	for args, want := range map[string]string{
		"-nostdn":               "unknown flag -nostdn: did you mean -nostdin?",
		"-file x":               "unknown flag -file: did you mean -filepath?",
		"--verison":             "did you mean -version?",
		"-zzzzzz":               "unknown flag -zzzzzz (minimega -h lists all)",
		"-port x":               "-port",
		"-port 70000":           "a port is between",
		"-level loud":           "want debug, info, warn, error or fatal",
		"-degree -1":            "-degree",
		"-base":                 "flag needs an argument: -base",
		"-vlanrange 5":          "want min-max",
		"-vlanrange 9-5":        "want min-max",
		"-vlanrange 1-5000":     "want min-max",
		"-e -attach":            "-attach and -e exclude each other",
		"-pipe=":                "needs the name of a pipe",
		"-base= -e version":     "-base is empty",
		"-force=maybe":          "force",
		"-strict=2 -e vm info ": "strict",
	} {
		if _, err := ParseFlags(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestHelp(t *testing.T) {
	if _, err := ParseFlags([]string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
	var b strings.Builder
	Usage(&b)
	for _, want := range []string{"usage: minimega", "-base directory", "-strict", `(default "101-4096")`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestRate(t *testing.T) {
	for v, want := range map[string]Rate{"0": 0, "100": 100, "1.5M": -1, "20k": 20e3, "3M": 3e6, "2G": 2e9, "-1": -1, "": -1, "M": -1, "99999999999G": -1} {
		var r Rate
		if err := r.Set(v); (err != nil) != (want < 0) || err == nil && r != want {
			t.Errorf("%q: %d, %v", v, r, err)
		}
	}
}
