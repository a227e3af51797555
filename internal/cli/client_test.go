package cli

import (
	"context"
	"io"
	"strings"
	"testing"
)

func TestExec(t *testing.T) {
	d := start(t)
	tests := []struct {
		name        string
		args        []string
		status      int
		out, errOut string
		sent        string
	}{
		{"words", []string{"-e", "echo", "a", "b"}, 0, "a b\n", "", "echo a b"},
		{"quoting", []string{"-e", "echo", `a "b`, "c"}, 0, `"a \"b" c` + "\n", "", `echo "a \"b" c`},
		{"verbatim", []string{"-e", `echo a  "b`}, 0, `a "b` + "\n", "", `echo a  "b`},
		{"namespace", []string{"-namespace", "foo", "-e", "echo", "a"}, 0, "a\n", "", "namespace foo echo a"},
		{"namespace, one argument", []string{"-namespace", "foo", "-e", "echo a"}, 0, "", "Error (box): no luck with namespace foo \"echo a\"\n", `namespace foo "echo a"`},
		{"failure", []string{"-e", "fail"}, 0, "", "Error (box): no luck with fail\n", "fail"},
		{"strict failure", []string{"-strict", "-e", "fail"}, 1, "", "Error (box): no luck with fail\n", "fail"},
		{"strict success", []string{"-strict", "-e", "echo", "a"}, 0, "a\n", "", "echo a"},
		{"half", []string{"-e", "half"}, 0, "out\n", "Error (box): err\n", "half"},
		{"control characters", []string{"-e", "sly"}, 0, "clear\x1b[2J\tout\n", "Error (box): clear\x1b[2J\u009bJerr\n", "sly"},
		{"quit", []string{"-e", "quit"}, 0, "", "", "quit"},
		{"nothing", []string{"-e"}, 2, "", "-e needs a command, such as `minimega -e vm info`\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(d.commands())
			cfg := config(t, append([]string{"-base", d.base}, tt.args...)...)
			status, out, errOut := output(t, "", func(ctx context.Context, std Stdio) int { return RunExec(ctx, cfg, std) })
			if status != tt.status || out != tt.out || errOut != tt.errOut {
				t.Errorf("got %d %q %q, want %d %q %q", status, out, errOut, tt.status, tt.out, tt.errOut)
			}
			if sent := strings.Join(d.commands()[before:], "|"); sent != tt.sent {
				t.Errorf("sent %q, want %q", sent, tt.sent)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	base := t.TempDir()
	for _, args := range [][]string{{"-e", "version"}, {"-attach"}, {"-pipe", "x"}} {
		cfg := config(t, append([]string{"-base", base}, args...)...)
		status, out, errOut := output(t, "", func(ctx context.Context, std Stdio) int {
			status, _ := RunClient(ctx, cfg, std)
			return status
		})
		want := "no minimega at " + base + ": start it with `minimega -base " + base + "` (no such file or directory)\n"
		if status != 1 || out != "" || errOut != want {
			t.Errorf("%v: %d %q %q", args, status, out, errOut)
		}
	}
}

func TestAttachPlain(t *testing.T) {
	d := start(t)
	cfg := config(t, "-base", d.base, "-namespace", "foo", "-attach")
	status, out, errOut := output(t, "echo one\n\n  quit\necho two\nfail\ndisconnect\necho three\n",
		func(ctx context.Context, std Stdio) int { return RunAttach(ctx, cfg, std) })
	if status != 0 || !strings.HasPrefix(out, "one\nCAUTION: ") || !strings.HasSuffix(out, "\ntwo\n") ||
		errOut != "Error (box): no luck with namespace \"foo\" fail\n" {
		t.Errorf("%d %q %q", status, out, errOut)
	}
	want := `namespace "foo" echo one|namespace "foo" echo two|namespace "foo" fail`
	if got := strings.Join(d.commands(), "|"); got != want {
		t.Errorf("sent %s", got)
	}
}

func TestAttachQuitsAtTheSecondTime(t *testing.T) {
	d := start(t)
	cfg := config(t, "-base", d.base, "-attach")
	status, _, errOut := output(t, "quit\necho a\nquit\nquit\necho b\n",
		func(ctx context.Context, std Stdio) int { return RunAttach(ctx, cfg, std) })
	if got := strings.Join(d.commands(), "|"); status != 0 || errOut != "" || got != "echo a|quit" {
		t.Errorf("%d %q, sent %s", status, errOut, got)
	}
}

func TestPipeMode(t *testing.T) {
	d := start(t)
	cfg := config(t, "-base", d.base, "-pipe", "p")
	in := &waiting{text: "one\ntwo\n", until: make(chan struct{})}
	out := &counting{want: "one\none\ntwo\ntwo\n", done: in.until}
	status := RunPipe(context.Background(), cfg, Stdio{in, out, out})
	if status != 0 || out.got != out.want {
		t.Errorf("%d %q", status, out.got)
	}
}

func TestVersion(t *testing.T) {
	status, out, _ := output(t, "", func(_ context.Context, std Stdio) int { return RunVersion(std) })
	if !strings.HasPrefix(out, "minimega 4.") || status != 0 {
		t.Errorf("%d %q", status, out)
	}
}

func TestCompleteLine(t *testing.T) {
	d := start(t)
	tests := []struct {
		flags, words []string
		want         string
	}{
		{nil, []string{"vm", "sta"}, "start\n"},
		{nil, []string{"vm", ""}, "info\nstart\nstop\n"},
		{nil, []string{"e"}, "echo\n"},
		{nil, nil, "echo\nfail\nmany\nnamespace\nquit\nsay\nsly\nvm\nwait\n"},
		{nil, []string{"vm sta"}, "vm start\n"},
		{nil, []string{"vm", "start", ""}, "alpha\nbeta:1\nbig vm\n"},
		{nil, []string{"vm", "start", "big v"}, "big vm\n"},
		{[]string{"-namespace", "foo"}, []string{"vm", "sto"}, "stop\n"},
		{nil, []string{"say", "w"}, "wörld\n"},
		{nil, []string{"bogus", "x"}, ""},
	}
	for _, tt := range tests {
		args := append([]string{"-base", d.base}, tt.flags...)
		cfg := config(t, append(append(args, completeLineWord), tt.words...)...)
		status, out, errOut := output(t, "", func(ctx context.Context, std Stdio) int { return RunCompleteLine(ctx, cfg, std) })
		if status != 0 || out != tt.want || errOut != "" {
			t.Errorf("%q: %d %q %q, want %q", tt.words, status, out, errOut, tt.want)
		}
	}
	cfg := config(t, "-base", t.TempDir(), completeLineWord, "vm", "sta")
	if status, out, errOut := output(t, "", func(ctx context.Context, std Stdio) int { return RunCompleteLine(ctx, cfg, std) }); status != 0 || out+errOut != "" {
		t.Errorf("without a daemon: %d %q %q", status, out, errOut)
	}
}

// waiting is an input that ends only when it is told to.
type waiting struct {
	text  string
	until chan struct{}
}

func (w *waiting) Read(p []byte) (int, error) {
	if w.text == "" {
		<-w.until
		return 0, io.EOF
	}
	n := copy(p, w.text)
	w.text = w.text[n:]
	return n, nil
}

// counting closes done when it has got what it wants.
type counting struct {
	got, want string
	done      chan struct{}
}

func (c *counting) Write(p []byte) (int, error) {
	if c.got += string(p); c.got == c.want {
		close(c.done)
	}
	return len(p), nil
}
