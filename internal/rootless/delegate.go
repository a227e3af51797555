package rootless

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// groupsEnv tells the minimega in the namespaces that control groups were lent
// to it.
const groupsEnv = "MINIMEGA_ROOTLESS_CGROUPS"

// groupsDir is where they are mounted then.
const groupsDir = "/sys/fs/cgroup"

// Cgroups is the directory of control groups, of version 2, that belong to the
// minimega in the namespaces, "" if there are none.
func Cgroups() string {
	if !Inside() || os.Getenv(groupsEnv) == "" {
		return ""
	}
	return groupsDir
}

// delegated finds the control group of version 2 that we are in, if our user
// may make others in it (cgroups(7), Delegation), else "".
func delegated() string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	dir := ownGroup(string(mounts), string(own))
	for _, file := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		if dir == "" || unix.Access(filepath.Join(dir, file), unix.W_OK) != nil {
			return ""
		}
	}
	return dir
}

// ownGroup is the directory of our group in version 2, by mountinfo and cgroup
// in /proc/self.
func ownGroup(mounts, own string) string {
	path, ok := "", false
	for line := range strings.Lines(own) {
		if p, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); found {
			path, ok = p, strings.HasPrefix(p, "/") && !strings.Contains(p, "..")
		}
	}
	for line := range strings.Lines(mounts) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if ok && len(l) > 4 && len(r) > 0 && r[0] == "cgroup2" && l[3] == "/" {
			return filepath.Join(l[4], path)
		}
	}
	return ""
}

// stepAside puts us and a child into a group below our own, which is then free
// for controllers to be handed down (no processes in inner groups). back undoes
// it when the child has ended.
func stepAside(dir string, child int) (back func(), err error) {
	own, leaf := strconv.Itoa(os.Getpid()), filepath.Join(dir, fmt.Sprintf("minimega-daemon-%d", os.Getpid()))
	back = func() {
		for _, c := range []string{"-cpu", "-memory", "-pids"} {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(c), 0) // it may not have been handed down
		}
		// Who lent us the group removes it when we have ended, if we cannot.
		_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(own), 0)
		_ = os.Remove(leaf)
	}
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return nil, err
	}
	for _, pid := range []string{own, strconv.Itoa(child)} {
		err = errors.Join(err, os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0))
	}
	if err != nil {
		back()
		return nil, err
	}
	return back, nil
}

// mountGroups shows the control groups that were lent to us.
func mountGroups() error {
	if os.Getenv(groupsEnv) == "" {
		return nil
	}
	if err := unix.Mount("cgroup2", groupsDir, "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount control groups: %w", err)
	}
	return nil
}
