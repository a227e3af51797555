package api

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"minimega/internal/command"
)

// typed runs lines in one session and returns what came back, a line each.
func typed(t *testing.T, r *Router, lines ...string) []string {
	t.Helper()
	var got []string
	s := r.NewSession()
	for _, line := range lines {
		err := r.RunLine(context.Background(), s, line, func(b command.Batch) error {
			for _, resp := range b.Resps {
				got = append(got, strings.TrimSuffix(fmt.Sprintf("%s: %s!%s", resp.Host, resp.Response, resp.Error), "!"))
			}
			return nil
		})
		if err != nil {
			got = append(got, "ended: "+err.Error())
		}
	}
	return got
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		line string
		want []string
	}{
		{"version", []string{"box: minimega 4.0.0 unknown unknown"}},
		{"", nil},
		{"# note", nil},
		{"silent", nil},
		{"nothing", []string{"box: "}},
		{"fail", []string{"box: !no <such> luck"}},
		{"half", []string{"box: out!err"}},
		{"late", []string{"box: a", "box: !then it broke"}},
		{"stream", []string{"box: a", "box: b", "box: c"}},
		{"vm start x", []string{"box: !vm not found: x"}},
		{"quit", []string{"ended: " + command.ErrNoReply.Error()}},
		{".record false quit", []string{"ended: " + command.ErrNoReply.Error()}},
		{"namespace foo where", []string{"box: footrue"}},
		{"where", []string{"box: minimegafalse"}},
		{"echo +a b", []string{"box: ++a b"}},
		{"namespace foo echo +a", []string{"box: ++a"}},
		{"echo !x", []string{": !get x: file not found"}},
		{"namespace foo echo !x", []string{": !get x: file not found"}},
		{".preprocess false echo !x", []string{"box: !x"}},
		{".preprocess false .preprocess true echo +x", []string{"box: ++x"}},
		{`read "echo 1;fail;echo +2"`, []string{"box: 1", "box: !no <such> luck", "box: ++2"}},
		{`read "echo 1;namespace foo;where"`, []string{"box: 1", "box: ", "box: foofalse"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			if d := cmp.Diff(tt.want, typed(t, newFakes().newRouter(t), tt.line)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSyntaxError(t *testing.T) {
	got := typed(t, newFakes().newRouter(t), "bogus thing")
	if len(got) != 1 || !strings.HasPrefix(got[0], "box: !invalid command: `bogus thing`") {
		t.Errorf("got %q", got)
	}
}

func TestPanic(t *testing.T) {
	f := newFakes()
	got := typed(t, f.newRouter(t), "panic", "echo on")
	if len(got) != 2 || !strings.Contains(got[0], `"panic" failed inside minimega (ouch)`) || got[1] != "box: on" {
		t.Errorf("got %q", got)
	}
	if log := f.logged(); !strings.Contains(log, "ouch") || !strings.Contains(log, "fake_test.go") {
		t.Errorf("no stack in the log: %s", log)
	}
}

func TestHistory(t *testing.T) {
	tests := []struct {
		name  string
		lines []string
		want  []string
	}{
		{"trimmed", []string{"  echo a   b ", "", "  # note  "}, []string{"echo a   b", "# note"}},
		{"errors", []string{"fail", "bogus", "echo !x", "namespace foo echo !x"}, []string{"fail"}},
		{"nested once", []string{`namespace foo .json true echo "a b"`}, []string{`namespace foo .json true echo "a b"`}},
		{"record", []string{".record false echo a", "namespace foo .record false echo b", ".record true echo c"}, []string{".record true echo c"}},
		{"record off", []string{".record false", "echo a", ".record true echo b", ".record true", "echo c"},
			[]string{".record true echo b", ".record true", "echo c"}},
		{"unkept", []string{"clear history", `read "echo a"`, "clear all"}, []string{`namespace "minimega" echo a`, "clear all"}},
		{"script", []string{`read "echo a;# c;namespace foo;echo b;.record false echo c;clear all;namespace bar .json true echo d"`}, []string{
			`namespace "minimega" echo a`, "# c", "namespace foo", `namespace "foo" echo b`, `namespace "foo" clear all`,
			`namespace "foo" namespace bar .json true echo d`,
		}},
		{"write", []string{"echo a", "write f"}, []string{"echo a", "write f"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newFakes().newRouter(t)
			typed(t, r, tt.lines...)
			if d := cmp.Diff(tt.want, r.opts.Shared.History()); d != "" {
				t.Error(d)
			}
		})
	}
}

// What a command marks as secret arrives there, and is recorded nowhere.
func TestSecret(t *testing.T) {
	f := newFakes()
	r := f.newRouter(t)
	r.opts.Shared.SetAlias("in", "login me")
	got := typed(t, r, `login me "pass w0rd"`, "namespace foo .json true logi 'm e' passw0rd", "in passw0rd", `read "login a passw0rd;.record false login b c"`)
	typed(t, r, ".alias in = namespace foo login me passw0rd", ".alias say=echo so")
	if text := strings.Join(got, "\n"); strings.Count(text, "w0rd") != 4 {
		t.Errorf("the command got something else: %s", text)
	}
	want := []string{"login me ****", `namespace foo .json true login "m e" ****`, "login me ****", `namespace "minimega" login a ****`,
		`.alias in =namespace foo login me ****`, ".alias say=echo so"}
	if d := cmp.Diff(want, r.opts.Shared.History()); d != "" {
		t.Error(d)
	}
	typed(t, r, "namespace foo login panic passw0rd")
	if log := f.logged(); !strings.Contains(log, "login panic ****") || strings.Contains(log, "w0rd") {
		t.Errorf("log: %s", log)
	}
	for line, want := range map[string]string{"login a b": "login a ****", "in b": "login me ****", "  echo 'a'  ": "  echo 'a'  ", "lgin a b": "", "": "", "# login a b": "# login a b"} {
		if got := r.Conceal(line); got != want {
			t.Errorf("%q is kept as %q, want %q", line, got, want)
		}
	}
}

func TestAlias(t *testing.T) {
	r := newFakes().newRouter(t)
	r.opts.Shared.SetAlias("say", "echo so")
	want := []string{"box: so what", "box: !invalid command: `say what`"}
	got := typed(t, r, "say what", `read "say what"`)
	if len(got) == 2 {
		got[1] = got[1][:min(len(got[1]), len(want[1]))]
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"echo so what"}, r.opts.Shared.History()); d != "" {
		t.Error("history:", d)
	}
}

func TestSuggest(t *testing.T) {
	r := newFakes().newRouter(t)
	for line, want := range map[string][]string{
		"vers":                         {"version"},
		"vm start ":                    {`vm start "big vm"`, "vm start minimega-vm"},
		"namespace foo vm start f":     {"namespace foo vm start foo-vm"},
		"  vm st":                      {"  vm start"},
		".json true namespace x fai":   {".json true namespace x fail"},
		"nonsense ":                    {},
		`echo "`:                       {},
		"namespace x .record false vm": {"namespace x .record false vm"},
	} {
		got := r.Suggest(context.Background(), r.NewSession(), line)
		if d := cmp.Diff(want, append([]string{}, got...)); d != "" {
			t.Errorf("%q: %s", line, d)
		}
	}
}
