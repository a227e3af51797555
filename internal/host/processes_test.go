package host

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
)

// A process in a PID namespace of its own is a container's, whatever command
// line it shows.
func TestProcessesOfContainers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a PID namespace")
	}
	const pose = "keeper of somebody else"
	start := func(flags uintptr) int {
		cmd := exec.Command("cat")
		cmd.Args = []string{"cat", "-", pose}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		hold, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = hold.Close()
			_ = cmd.Wait() // there is no file of that name
		})
		return cmd.Process.Pid
	}
	mine := start(0)
	start(syscall.CLONE_NEWPID)
	list, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, p := range list {
		if slices.Contains(p.Args, pose) {
			found = append(found, p.Pid)
		}
	}
	if !slices.Equal(found, []int{mine}) {
		t.Errorf("found %d, want %d", found, mine)
	}
}
