package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/pkg/minicli"
	"minimega/pkg/miniclient"
)

// TestMain is also the program, for the shells and terminals of the tests.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_MAIN") == "" {
		os.Exit(m.Run())
	}
	cfg, err := ParseFlags(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	status, handled := RunClient(context.Background(), cfg, Stdio{os.Stdin, os.Stdout, os.Stderr})
	if !handled {
		fmt.Fprintln(os.Stderr, "not a client")
		os.Exit(3)
	}
	os.Exit(status)
}

// daemon is a fake that speaks the protocol: `echo` answers, `fail` fails,
// `half` does both, `sly` says what would clear a terminal, `many` answers 200 lines, `wait` never does, `quit` hangs up; it completes
// its small language, and pipes double what they get.
type daemon struct {
	base string
	l    net.Listener
	cli  *minicli.CLI
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	got   []string
}

func start(t *testing.T) *daemon {
	t.Helper()
	language, err := minicli.New(
		&minicli.Handler{Patterns: []string{"vm start <vm target>", "vm stop <vm target>", "vm info"}},
		&minicli.Handler{Patterns: []string{"echo <args>...", "fail", "sly", "many", "wait", "quit"}},
		&minicli.Handler{Patterns: []string{"namespace <name> (command)"}},
		&minicli.Handler{Patterns: []string{"say <héllo,wörld>"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{base: t.TempDir(), cli: language}
	d.l, err = net.Listen("unix", miniclient.SocketPath(d.base))
	if err != nil {
		t.Fatal(err)
	}
	d.wg.Go(d.accept)
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) stop() {
	d.l.Close()
	d.mu.Lock()
	for _, c := range d.conns {
		c.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *daemon) accept() {
	for {
		c, err := d.l.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		d.conns = append(d.conns, c)
		d.mu.Unlock()
		d.wg.Go(func() { d.serve(c) })
	}
}

func (d *daemon) commands() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.got...)
}

func (d *daemon) serve(c net.Conn) {
	defer c.Close()
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var q struct{ Command, Suggest, PlumbPipe string }
		if in.Decode(&q) != nil {
			return
		}
		d.mu.Lock()
		d.got = append(d.got, q.Command+q.Suggest)
		d.mu.Unlock()
		switch {
		case q.PlumbPipe != "":
			d.pipe(in, out)
			return
		case q.Suggest != "":
			out.Encode(miniclient.Response{Suggest: d.suggest(q.Suggest)})
		case !d.command(q.Command, out):
			return
		}
	}
}

func (d *daemon) pipe(in *json.Decoder, out *json.Encoder) {
	for {
		var s string
		if in.Decode(&s) != nil {
			return
		}
		out.Encode(s + s)
	}
}

func (d *daemon) suggest(line string) (lines []string) {
	start, _, _ := minicli.LastWord(line)
	names := func(*minicli.Handler, string, string, string, *minicli.Command) []string {
		return []string{"alpha", "big vm", "beta:1"}
	}
	for _, w := range d.cli.Suggest(line, names) {
		lines = append(lines, line[:start]+w)
	}
	return lines
}

func (d *daemon) command(line string, out *json.Encoder) bool {
	words := strings.Fields(line)
	if len(words) > 2 && words[0] == "namespace" {
		words = words[2:]
	}
	resp := &miniclient.HostResponse{Host: "box"}
	switch word := words[0]; {
	case word == "quit":
		return false
	case word == "echo":
		resp.Response = strings.Join(words[1:], " ")
	case word == "half":
		resp.Response, resp.Error = "out", "err"
	case word == "sly":
		resp.Response, resp.Error = "clear\x1b[2J\tout", "clear\x1b[2J\u009bJerr"
	case word == "many":
		resp.Response = strings.Repeat("line\n", 199) + "last"
	case word == "wait":
		out.Encode(miniclient.Response{Status: true, Rendered: "waiting"})
		return true
	case strings.HasPrefix(line, ".record false history"):
		resp.Response = "echo from history"
	default:
		resp.Error = "no luck with " + line
	}
	out.Encode(miniclient.Response{Resp: miniclient.Responses{resp}, Rendered: resp.Response})
	return true
}

// output runs a mode and returns what it printed.
func output(t *testing.T, in string, run func(context.Context, Stdio) int) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	status = run(ctx, Stdio{strings.NewReader(in), &out, &errs})
	return status, out.String(), errs.String()
}

func config(t *testing.T, args ...string) Config {
	t.Helper()
	c, err := ParseFlags(args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// program makes the test a program of the name minimega, in a directory of
// its own, and returns that.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "minimega")); err != nil {
		t.Fatal(err)
	}
	return dir
}
