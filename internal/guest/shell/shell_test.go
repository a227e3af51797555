package shell

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"minimega/internal/guest/cmdline"
)

func TestParseLine(t *testing.T) {
	for _, c := range []struct {
		line string
		want []parsed
		bad  bool
	}{
		{line: "", want: nil},
		{line: " # only a comment", want: nil},
		{line: "ls -l  /tmp", want: []parsed{{args: []string{"ls", "-l", "/tmp"}}}},
		{line: `echo 'a  "b' "c 'd" e\ f \"`, want: []parsed{{args: []string{"echo", `a  "b`, "c 'd", "e f", `"`}}}},
		{line: "echo ''", want: []parsed{{args: []string{"echo", ""}}}},
		{line: "a;b ; ;c;", want: []parsed{{args: []string{"a"}}, {args: []string{"b"}}, {args: []string{"c"}}}},
		{line: "echo a>b; echo c >> d", want: []parsed{{args: []string{"echo", "a"}, to: "b"}, {args: []string{"echo", "c"}, to: "d", add: true}}},
		{line: "get http://h/#x", want: []parsed{{args: []string{"get", "http://h/#x"}}}},
		{line: "echo 'a", bad: true},
		{line: `echo \`, bad: true},
		{line: "echo >", bad: true},
		{line: "> x", bad: true},
		{line: "> x; ls", bad: true},
		{line: "echo > ; x", bad: true},
	} {
		got, err := parseLine(c.line)
		if (err != nil) != c.bad {
			t.Errorf("%q: error %v", c.line, err)
		}
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(parsed{})); err == nil && d != "" {
			t.Errorf("%q: %s", c.line, d)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"ls", "echo 'a' > b; c", `"\`, ">>>", "a;;b#", "\xff\x00'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		list, err := parseLine(line)
		if err != nil && list != nil {
			t.Errorf("both a result and %v", err)
		}
		for _, c := range list {
			if len(c.args) == 0 {
				t.Error("a command without a word")
			}
		}
	})
}

// fakeSystem stands for the machine.
type fakeSystem struct {
	asked []cmdline.Address
	iface string
	off   chan struct{}
}

func (f *fakeSystem) Run(cmd *exec.Cmd) error { return cmd.Run() }
func (f *fakeSystem) Configure(iface string, want []cmdline.Address) error {
	f.iface, f.asked = iface, want
	return nil
}
func (f *fakeSystem) PowerOff() { close(f.off) }
func (f *fakeSystem) Reboot()   {}

// typist is a person at a console.
type typist struct {
	t    *testing.T
	in   *io.PipeWriter
	out  chan []byte
	seen []byte
}

func newTypist(t *testing.T, c Console) *typist {
	inR, inW := io.Pipe()
	ty := &typist{t: t, in: inW, out: make(chan []byte, 1024)}
	c.Device = struct {
		io.Reader
		io.Writer
	}{inR, ty}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Serve(ctx); err == nil {
			t.Error("Serve ended without an error")
		}
	}()
	t.Cleanup(func() { cancel(); inW.Close(); <-done })
	return ty
}

func (ty *typist) Write(p []byte) (int, error) {
	ty.out <- bytes.Clone(p)
	return len(p), nil
}

func (ty *typist) expect(text string) string {
	ty.t.Helper()
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	for {
		if i := bytes.Index(ty.seen, []byte(text)); i >= 0 {
			before := string(ty.seen[:i])
			ty.seen = ty.seen[i+len(text):]
			return before
		}
		select {
		case p := <-ty.out:
			ty.seen = append(ty.seen, p...)
		case <-timeout.C:
			ty.t.Fatalf("no %q in %q", text, ty.seen)
		}
	}
}

func (ty *typist) typ(keys string) {
	ty.t.Helper()
	if _, err := io.WriteString(ty.in, keys); err != nil {
		ty.t.Fatal(err)
	}
}

func TestConsole(t *testing.T) {
	sys := &fakeSystem{off: make(chan struct{})}
	ty := newTypist(t, Console{Name: "test", System: sys})
	dir := t.TempDir()
	ty.expect("# ")
	ty.typ("echo hello\r")
	ty.expect("\r\nhello\r\n")
	ty.typ("echo helo\x1b[D\x7f\x7flXl\r") // left, two backspaces
	ty.expect("\nhlXlo\r\n")
	ty.typ("upt\t\r") // completion
	ty.expect("load")
	ty.typ("echo given up\x03echo new\r") // ctrl-C
	ty.expect("\nnew\r\n")
	ty.typ("sleep 1000\r\x03echo after\r")
	ty.expect("^C")
	ty.expect("\nafter\r\n")
	ty.typ("ip eth3 dhcp\r")
	ty.typ("cd " + dir + "; echo x > f; ls; /bin/sh -c 'echo from $0; exit 3' sh\r")
	ty.expect("\nf\r\n")
	ty.expect("from sh\r\n")
	ty.expect("exit status 3")
	if data, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(data) != "x\n" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	if sys.iface != "eth3" || len(sys.asked) != 1 || sys.asked[0].Method != cmdline.DHCP {
		t.Errorf("configured %s %v", sys.iface, sys.asked)
	}
	ty.typ("poweroff\r")
	<-sys.off
	ty.typ("\x03")
}

func TestLogin(t *testing.T) {
	ty := newTypist(t, Console{Name: "test", User: "ann", Password: "pass word", System: &fakeSystem{}})
	ty.expect("login: ")
	ty.typ("bob\r")
	ty.expect("Password: ")
	ty.typ("pass word\r")
	ty.expect("Login incorrect")
	ty.expect("login: ")
	ty.typ("ann\r")
	ty.expect("Password: ")
	ty.typ("pass word\r")
	if out := ty.expect("# "); strings.Contains(out, "pass word") {
		t.Errorf("the password is shown: %q", out)
	}
	ty.typ("logout\r")
	ty.expect("login: ")
}

func TestEveryCommandHasHelp(t *testing.T) {
	for name, c := range builtins() {
		if c.help == "" || !strings.HasPrefix(c.usage, name) || c.run == nil && name != "exit" && name != "logout" {
			t.Errorf("%s: usage %q, help %q", name, c.usage, c.help)
		}
	}
}

func TestFrame(t *testing.T) {
	if bytes.Equal(frame(0, 80, 25), frame(1, 80, 25)) {
		t.Error("two frames are the same")
	}
	if n := bytes.Count(frame(0, 80, 25), []byte("\n")); n != 24 {
		t.Errorf("a frame of 25 lines has %d line breaks", n)
	}
	frame(0, 1, 1) // the smallest screen
}
