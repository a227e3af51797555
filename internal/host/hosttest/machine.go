// Package hosttest compares a machine before and after a test. It shares the
// machine with others: of what the whole machine has in common it counts only
// what bears a mark of the test, such as the test's directory; of a network
// namespace that the test made it counts everything. Programs that a test kills
// are the test program again.
package hosttest

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Machine says what of a machine belongs to a test.
type Machine struct {
	// Marks are texts of which one stands in everything that the test makes:
	// its directory, to begin with.
	Marks []string
	// Netns is a network namespace of the test's own, by the name that ip-netns(8)
	// knows; "" for that of the calling thread, in which only what has a mark counts.
	Netns string
	// Alone says that the network namespace of the calling thread is the test's
	// own, too, though without a name.
	Alone bool
	// Temps are directories that only the test puts files in.
	Temps []string
}

// Snapshot is what there was at a time: a line for each thing.
type Snapshot map[string]bool

// Take looks at the machine.
func (m Machine) Take() Snapshot {
	s := Snapshot{}
	for _, list := range [][]string{m.processes(), m.links(), m.mounts(), m.cgroups(), m.namespaces(), m.sockets(), m.files()} {
		for _, line := range list {
			s[line] = true
		}
	}
	return s
}

// Since returns what there is now and was not before.
func (m Machine) Since(before Snapshot) []string {
	now := m.Take()
	maps.DeleteFunc(now, func(line string, _ bool) bool { return before[line] })
	return slices.Sorted(maps.Keys(now))
}

// grace is how long what has just been ended may take to go: a process that
// nobody waits for yet, a device that the kernel still counts references of, on
// a machine that has much else to do.
const grace = 30 * time.Second

// Left is Since once nothing changes any more, at the latest after a moment.
func (m Machine) Left(before Snapshot) []string {
	for until := time.Now().Add(grace); ; time.Sleep(20 * time.Millisecond) {
		left := m.Since(before)
		if len(left) == 0 || time.Now().After(until) {
			return left
		}
	}
}

// Check fails the test if it ends with something that was not there when it
// called this. Clean-ups that are registered later run before the comparison.
func (m Machine) Check(t testing.TB) {
	t.Helper()
	before := m.Take()
	t.Cleanup(func() {
		for _, line := range m.Left(before) {
			t.Errorf("left behind: %s", line)
		}
	})
}

func (m Machine) marked(text string) bool {
	return slices.ContainsFunc(m.Marks, func(mark string) bool { return strings.Contains(text, mark) })
}

// processes are those with a mark on their command line or as their working
// directory, except for the test itself.
func (m Machine) processes() (lines []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue
		}
		text := string(bytes.ReplaceAll(bytes.TrimSuffix(line, []byte{0}), []byte{0}, []byte{' '}))
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if m.marked(text) || m.marked(cwd) {
			lines = append(lines, fmt.Sprintf("process %d: %s", pid, text))
		}
	}
	return lines
}

// inside runs a command in the test's network namespace.
func (m Machine) inside(args ...string) []string {
	if m.Netns != "" {
		args = append([]string{"ip", "netns", "exec", m.Netns}, args...)
	}
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return nil // the namespace has gone, with all that was in it
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// links are the interfaces, without their changing properties.
func (m Machine) links() (lines []string) {
	for _, line := range m.inside("ip", "-o", "link") {
		f := strings.Fields(line)
		if len(f) < 2 || m.Netns == "" && !m.Alone && !m.marked(line) {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
		lines = append(lines, "link "+name)
	}
	return lines
}

func (m Machine) mounts() (lines []string) {
	text, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(text)) {
		if m.marked(line) {
			lines = append(lines, "mount "+strings.TrimSpace(line))
		}
	}
	return lines
}

// cgroups walks the hierarchies as far down as containers are put.
func (m Machine) cgroups() (lines []string) {
	for _, pattern := range []string{"*", "*/*", "*/*/*", "*/*/*/*"} {
		dirs, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup", pattern))
		for _, dir := range dirs {
			if st, err := os.Stat(dir); m.marked(dir) && err == nil && st.IsDir() {
				lines = append(lines, "cgroup "+dir)
			}
		}
	}
	return lines
}

// namespaces are the named network namespaces with a mark.
func (m Machine) namespaces() (lines []string) {
	names, _ := filepath.Glob("/run/netns/*")
	for _, path := range names {
		if name := filepath.Base(path); name != m.Netns && m.marked(name) {
			lines = append(lines, "network namespace "+name)
		}
	}
	return lines
}

// sockets are the unix sockets with a mark in their path, and in a namespace of
// the test's own all that listens on TCP, UDP or raw.
func (m Machine) sockets() (lines []string) {
	for _, line := range m.inside("cat", "/proc/net/unix") {
		f := strings.Fields(line)
		if len(f) == 8 && m.marked(f[7]) {
			lines = append(lines, "socket "+f[7])
		}
	}
	if m.Netns == "" && !m.Alone {
		return lines
	}
	for _, family := range []string{"tcp", "tcp6", "udp", "udp6", "packet"} {
		for _, line := range m.inside("cat", "/proc/net/"+family) {
			f := strings.Fields(line)
			if len(f) > 3 && (f[3] == "0A" || family == "packet" && f[0] != "sk") { // listening
				lines = append(lines, "socket "+family+" "+f[1])
			}
		}
	}
	return lines
}

// files are those in the directories for temporary files.
func (m Machine) files() (lines []string) {
	for _, dir := range m.Temps {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			lines = append(lines, "file "+filepath.Join(dir, e.Name()))
		}
	}
	return lines
}
