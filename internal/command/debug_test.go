package command

import (
	"os"
	"strings"
	"testing"
)

func TestDebug(t *testing.T) {
	dir := t.TempDir()
	c := newClient(t, Debug(dir), Flags())
	if got, _ := c.run(".csv true .annotate false debug"); !strings.HasPrefix(got, "goversion,goroutines,cgocalls\ngo1.") {
		t.Errorf("got %q", got)
	}
	c.expect("debug memory m", "")
	c.expect("debug goroutine g", "")
	c.refuse("debug cpu stop", "CPU profile not running")
	c.expect("debug cpu start c", "")
	c.refuse("debug cpu start c", "CPU profile still running")
	c.expect("debug cpu stop", "")
	c.refuse("debug cpu stop", "CPU profile not running")
	for _, name := range []string{"m", "g", "c"} {
		if b, err := os.ReadFile(dir + "/" + name); err != nil || !strings.HasPrefix(string(b), "\x1f\x8b") {
			t.Errorf("%s is no profile: %q, %v", name, b, err)
		}
	}
	if _, bad := c.run("debug memory ../m"); !strings.Contains(bad, "leads out of the files directory") {
		t.Errorf("got %q", bad)
	}
	if _, bad := c.run("debug cpu start no/such/dir"); !strings.Contains(bad, "no such file") {
		t.Errorf("got %q", bad)
	}
	c.expect("debug cpu start c2", "") // the failed start left nothing running
	c.expect("debug cpu stop", "")
}
