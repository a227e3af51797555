package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unified is where this system has version 2 of control groups.
func unified(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
			return dir
		}
	}
	t.Skip("this system has no control groups of version 2")
	return ""
}

// In version 2, also where it has no controllers beside version 1, containers
// are cloned into their group, frozen, thawed, killed and kept off devices.
func TestUnified(t *testing.T) {
	b := newBenchWith(t, Options{Cgroups: unified(t)})
	b.succeeds(b.config("devices"))
	m := b.start(b.config("count"))
	until(t, "tick", func() bool { return strings.Contains(m.shown(), "tick") })
	pids, err := m.group.Pids()
	if err != nil || len(pids) != 1 || pids[0] != m.Pid() {
		t.Errorf("in the group: %v %v, init is %d", pids, err, m.Pid())
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if frozen, err := m.group.Frozen(); !frozen || err != nil {
		t.Errorf("%v %v", frozen, err)
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := m.shown()
	until(t, "more", func() bool { return m.shown() != before })
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
}
