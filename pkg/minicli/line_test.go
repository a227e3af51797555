package minicli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// checkLine compiles what cmd writes of itself and compares.
func checkLine(t *testing.T, c *CLI, cmd *Command) {
	t.Helper()
	if len(cmd.Line()) > MaxLine {
		return
	}
	again, err := c.Compile(cmd.Line())
	if err != nil {
		t.Fatalf("%q became %q: %v", cmd.Original, cmd.Line(), err)
	}
	opts := []cmp.Option{cmpopts.IgnoreFields(Command{}, "Handler", "Original"), cmpopts.IgnoreUnexported(Command{}), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(cmd, again, opts...); diff != "" {
		t.Fatalf("%q became %q: %s", cmd.Original, cmd.Line(), diff)
	}
}

func TestLine(t *testing.T) {
	c := language(t)
	for _, line := range append([]string{
		`echo "" "#" "a b" c\"d 'e\\f'`, `namespace "x y" .columns a,"b c" vm info`, "vm conf net", "ns run shell echo '$X  y'",
		".filter a=b .json true vm info summ", "clear vm tag all",
	}, seeds...) {
		if cmd, err := c.Compile(line); err == nil && cmd != nil && !cmd.Nop() {
			checkLine(t, c, cmd)
		}
	}
}

func TestClone(t *testing.T) {
	c := language(t)
	cmd := mustCompile(t, c, "namespace foo echo a b")
	clone := cmd.Clone()
	clone.Strings["name"], clone.Sub.Lists["args"][0] = "bar", "c"
	if cmd.Str("name") != "foo" || cmd.Sub.List("args")[0] != "a" {
		t.Errorf("a change of the copy shows in %q", cmd.Line())
	}
}

func TestTyped(t *testing.T) {
	c := language(t)
	cmd := mustCompile(t, c, "namespace $a echo $b c")
	for n := cmd; n != nil; n = n.Sub {
		for range 2 {
			if err := n.Preprocess(func(s string) (string, error) { return s + "!", nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := cmd.Line() + " | " + cmd.Typed().Line(); got != "namespace $a!! echo $b!! c!! | namespace $a echo $b c" {
		t.Error(got)
	}
}
