package tests

import (
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdShown waits for a text in a VM's console, to which it types nothing: shown
// ID TEXT. What was shown before counts.
func cmdShown(ts *testscript.TestScript, neg bool, args []string) {
	c, err := net.Dial("unix", filepath.Join(ts.Getenv("BASE"), args[0], "console"))
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(2 * time.Minute)))
	var shown strings.Builder
	buf := make([]byte, 1024)
	for !strings.Contains(shown.String(), args[1]) {
		n, err := c.Read(buf)
		shown.Write(buf[:n])
		if err != nil {
			ts.Fatalf("%q is not shown: %v; the console: %q", args[1], err, shown.String())
		}
	}
}
