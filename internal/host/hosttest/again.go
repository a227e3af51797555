package hosttest

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
)

// Child is the test program as another program, which a test can kill.
type Child struct {
	Cmd *exec.Cmd
	In  io.Closer // its input
	Out io.Reader
}

// Again runs the test program again with an order for it, as JSON, in an
// environment variable by which TestMain knows that it is not to test. It ends
// with the test at the latest.
func Again(t testing.TB, variable string, order any) *Child {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &Child{Cmd: exec.Command(self)}
	c.Cmd.Env = append(os.Environ(), variable+"="+string(text))
	c.Cmd.Stderr = os.Stderr
	if c.In, err = c.Cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if c.Out, err = c.Cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

// Kill ends it by force.
func (c *Child) Kill() {
	_ = c.Cmd.Process.Kill()
	_ = c.Cmd.Wait()
}
