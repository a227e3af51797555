package tests

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// containerGuest is the program in the file systems of containers, built when
// the first script needs it, beside the program under test.
var containerGuest = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "guest")
	build := exec.Command("go", "build", "-o", path, "minimega/internal/vm/container/testdata/guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

// cmdRoot makes a file system for containers, whose init is the guest: root DIR.
func cmdRoot(ts *testscript.TestScript, neg bool, args []string) {
	path, err := containerGuest()
	ts.Check(err)
	text, err := os.ReadFile(path)
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(errors.Join(os.MkdirAll(filepath.Join(dir, "tmp"), 0o755), os.WriteFile(filepath.Join(dir, "guest"), text, 0o755)))
}

// typed counts the lines of cmdConsole.
var typed atomic.Int32

// cmdConsole types a line into the console of a VM and waits for a text to be
// shown: console ID LINE TEXT. What was shown before, and the echo of the line,
// do not count: each line has another number of spaces at its end.
func cmdConsole(ts *testscript.TestScript, neg bool, args []string) {
	c, err := net.Dial("unix", filepath.Join(ts.Getenv("BASE"), args[0], "console"))
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(2 * time.Minute)))
	line := args[1] + strings.Repeat(" ", int(typed.Add(1)))
	_, err = fmt.Fprintln(c, line)
	ts.Check(err)
	if args[2] == "" {
		return
	}
	var shown strings.Builder
	buf := make([]byte, 1024)
	for {
		n, err := c.Read(buf)
		shown.Write(buf[:n])
		// The guest breaks lines that are longer than its terminal is wide.
		unbroken := strings.ReplaceAll(shown.String(), "\r\n", "")
		if _, after, echoed := strings.Cut(unbroken, line); echoed && strings.Contains(after, args[2]) {
			return
		}
		if err != nil {
			ts.Fatalf("%q is not shown: %v; the console: %s", args[2], err, shown.String())
		}
	}
}
