package minicli

import (
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	c, err := New(
		&Handler{HelpShort: "print the version", HelpLong: "Long story.\n", Patterns: []string{"version"}},
		&Handler{HelpShort: "show machines", Patterns: []string{"vm info [summary,]"}},
		&Handler{HelpShort: "start machines", HelpLong: "Start them.", Patterns: []string{"vm <start,> <vm target>", "vm <stop,> <vm target>"}},
		&Handler{HelpShort: "set a disk", Patterns: []string{"vm info disk <x>"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"": "Commands, `help <command>` tells more:\n" +
			"version       :  print the version\n" +
			"vm            :  start machines\n" +
			"vm info       :  show machines\n" +
			"vm info disk  :  set a disk",
		"version":     "Usage:\n\tversion\n\nLong story.",
		"VER":         "Usage:\n\tversion\n\nLong story.",
		"vm start":    "Usage:\n\tvm <start,> <vm target>\n\tvm <stop,> <vm target>\n\nStart them.",
		"vm stop all": "Usage:\n\tvm <start,> <vm target>\n\tvm <stop,> <vm target>\n\nStart them.",
		"nothing":     "no help entry for `nothing`",
		"vm nothing":  "no help entry for `vm nothing`",
		"vm info":     "Usage:\n\tvm info [summary,]\n\nshow machines\n\nSee also:\nvm info disk  :  set a disk",
		"vm i":        "Several commands begin like this:\nvm info       :  show machines\nvm info disk  :  set a disk",
	} {
		if got := c.Help(strings.Fields(words)); got != want {
			t.Errorf("Help(%q):\ngot  %q\nwant %q", words, got, want)
		}
	}
}

func TestPreprocess(t *testing.T) {
	c := language(t)
	mark := func(s string) (string, error) { return "<" + s + ">", nil }
	cmd := mustCompile(t, c, "mesh send all shell a b")
	before := cmd.Strings
	if err := cmd.Preprocess(mark); err != nil || cmd.Str("hostname") != "<all>" || before["hostname"] != "all" {
		t.Errorf("%v %v", cmd.Strings, err)
	}
	if got := cmd.Sub.List("command"); strings.Join(got, " ") != "a b" {
		t.Errorf("nested: %q", got)
	}
	if err := cmd.Sub.Preprocess(mark); err != nil || strings.Join(cmd.Sub.List("command"), " ") != "<a> <b>" {
		t.Errorf("%v %v", cmd.Sub.Lists, err)
	}
	disks := mustCompile(t, c, "vm config disks a b")
	if err := disks.Preprocess(mark); err != nil || strings.Join(disks.List("diskspec"), " ") != "a b" {
		t.Errorf("%v %v", disks.Lists, err)
	}
	calls := 0
	fail := func(s string) (string, error) {
		if calls++; calls > 1 {
			return "", errUnknown
		}
		return "x", nil
	}
	list := mustCompile(t, c, "shell a b c")
	if err := list.Preprocess(fail); err != errUnknown || strings.Join(list.List("command"), " ") != "a b c" || calls != 2 {
		t.Errorf("%v %v after %d calls", list.Lists, err, calls)
	}
}
