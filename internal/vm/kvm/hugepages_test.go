package kvm

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHugepages has a guest in huge pages.
func TestHugepages(t *testing.T) {
	const file, pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 24
	b, err := os.ReadFile(file)
	if err != nil {
		t.Skip("this kernel has no huge pages: ", err)
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	reserve := func(n int) error { return os.WriteFile(file, []byte(strconv.Itoa(n)), 0o644) }
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "hugetlbfs", 0, "pagesize=2M"); err != nil {
		t.Skip("needs to mount a hugetlbfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := reserve(before + pages); err != nil {
		t.Skip("cannot reserve huge pages: ", err)
	}
	defer func() {
		if err := reserve(before); err != nil {
			t.Error(err)
		}
	}()
	e := newEngine(t, Options{Accel: "tcg", Hugepages: func() string { return dir }})
	m, err := e.Launch(within(t, time.Minute), spec(t, 1, small()))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(m.Pid()) + "/smaps")
	if err != nil || !strings.Contains(string(maps), dir+"/") {
		t.Errorf("its memory is elsewhere, %v", err)
	}
	if err := m.Kill(within(t, time.Minute)); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
