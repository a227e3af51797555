package host

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// Process is a process of this machine that belongs to our user.
type Process struct {
	Pid  int
	Args []string // the program's name among them
}

// Processes lists the processes of our user, with their command lines. Those
// of others may show any command line, and are left out, as are those in PID
// namespaces below ours: they are of containers, whose root may be our user.
func Processes() ([]Process, error) {
	space, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var list []Process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || !ours(pid, space) {
			continue
		}
		if args := Arguments(pid); args != nil {
			list = append(list, Process{pid, args})
		}
	}
	return list, nil
}

func ours(pid int, space string) bool {
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() {
		return false
	}
	is, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	return err == nil && is == space
}

// Arguments returns the command line of a process, nil for one that has ended
// and for threads of the kernel.
func Arguments(pid int) []string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(line) == 0 {
		return nil
	}
	words := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
	args := make([]string, len(words))
	for i, w := range words {
		args[i] = string(w)
	}
	return args
}
