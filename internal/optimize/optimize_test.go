package optimize

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
)

// fakeKSM is a directory as the kernel has it.
func fakeKSM(t *testing.T) string {
	dir := t.TempDir()
	for name, value := range map[string]string{"run": "0\n", "pages_to_scan": "123\n", "sleep_millisecs": "7\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, base, ksm string) *Optimizer {
	t.Helper()
	o, err := Open(Options{Base: base, KSMDir: ksm, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func value(t *testing.T, dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestKSM(t *testing.T) {
	base, ksm := t.TempDir(), fakeKSM(t)
	o := open(t, base, ksm)
	if err := o.SetKSM(false); err == nil || err.Error() != "ksm is not enabled" {
		t.Error(err)
	}
	if err := o.SetKSM(true); err != nil || value(t, ksm, "run") != "1" || !o.KSM() {
		t.Fatal(err)
	}
	if err := o.SetKSM(true); err == nil || err.Error() != "ksm is already enabled" {
		t.Error(err)
	}
	// The daemon is killed; the next one knows what was before.
	o = open(t, base, ksm)
	if !o.KSM() {
		t.Error("forgotten")
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if got := value(t, ksm, "run") + value(t, ksm, "pages_to_scan") + value(t, ksm, "sleep_millisecs"); got != "01237" {
		t.Errorf("not put back: %s", got)
	}
	if left, _ := os.ReadDir(base); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	if err := open(t, base, filepath.Join(base, "none")).SetKSM(true); !errors.Is(err, errs.Unsupported) {
		t.Error(err)
	}
}

// What an earlier daemon tuned is taken back, and said.
func TestDiscard(t *testing.T) {
	base, ksm := t.TempDir(), fakeKSM(t)
	o := open(t, base, ksm)
	cpus, err := allowed()
	if err == nil {
		err = errors.Join(o.SetKSM(true), o.SetFilter(cpus[:1]), o.SetAffinity(true))
	}
	if err != nil {
		t.Fatal(err)
	}
	o = open(t, base, ksm)
	want := []string{"merging of equal memory pages (KSM)", "affinity of VMs to processors", fmt.Sprintf("filter of processors %v", cpus[:1])}
	if got, err := o.Discard(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got := value(t, ksm, "run"); got != "0" || o.Affinity() {
		t.Errorf("not taken back: run %s, affinity %v", got, o.Affinity())
	}
	if got, err := open(t, base, ksm).Discard(); got != nil || err != nil {
		t.Errorf("again: %q, %v", got, err)
	}
}

func TestHugepages(t *testing.T) {
	base, dir := t.TempDir(), t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	o := open(t, base, "")
	if err := o.SetHugepages(dir); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "(mount -t hugetlbfs none "+dir+")") {
		t.Error(err)
	}
	if err := o.SetHugepages("/nonexistent"); !errors.Is(err, errs.NotFound) {
		t.Error(err)
	}
	if err := unix.Mount("none", dir, "hugetlbfs", 0, ""); err != nil {
		t.Skip("needs to mount a hugetlbfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	if err := o.SetHugepages(dir); err != nil || o.Hugepages() != dir {
		t.Error(err)
	}
	if o = open(t, base, ""); o.Hugepages() != dir {
		t.Error("forgotten")
	}
	if err := o.Close(); err != nil || o.Hugepages() != "" {
		t.Error(err)
	}
}

// cpusOf reads what every thread of a process may use.
func cpusOf(t *testing.T, pid int) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task/*/status"))
	if err != nil || len(paths) == 0 {
		t.Fatal("no threads", err)
	}
	found := map[string]bool{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
				found[strings.TrimSpace(list)] = true
			}
		}
	}
	var all []string
	for list := range found {
		all = append(all, list)
	}
	slices.Sort(all)
	return strings.Join(all, " and ")
}

func TestAffinity(t *testing.T) {
	free, err := allowed()
	if err != nil {
		t.Fatal(err)
	}
	if len(free) < 2 {
		t.Skip("needs two processors")
	}
	base := t.TempDir()
	hosttest.Machine{Marks: []string{base}}.Check(t)
	start := func() int {
		cmd := exec.Command("sleep", "60")
		cmd.Dir = base
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	o := open(t, base, "")
	a, b, wide := start(), start(), start()
	before := cpusOf(t, a)
	o.Started(a, 1)
	o.Started(wide, 1000)
	if cpusOf(t, a) != before {
		t.Error("pinned while affinity is off")
	}
	if err := o.SetAffinity(true); err != nil {
		t.Fatal(err)
	}
	o.Started(b, 1)
	if x, y := cpusOf(t, a), cpusOf(t, b); x == y || cpusOf(t, wide) != before {
		t.Errorf("both on %s, the wide one on %s", x, cpusOf(t, wide))
	}
	last := free[len(free)-1]
	if err := o.SetFilter([]int{last, 5000}); err != nil {
		t.Fatal(err)
	}
	if cpusOf(t, a) != strconv.Itoa(last) || cpusOf(t, b) != strconv.Itoa(last) {
		t.Errorf("filtered to %d: on %s and %s", last, cpusOf(t, a), cpusOf(t, b))
	}
	if err := o.SetFilter([]int{5000}); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
	cpus, err := o.CPUs()
	if err != nil || len(cpus) != 1 || cpus[0].CPU != last || len(cpus[0].Pids) != 3 {
		t.Errorf("%v, %v", cpus, err)
	}
	o.Ended(b)
	// The next daemon goes on with those that it adopts.
	o = open(t, base, "")
	o.Started(a, 1)
	if !o.Affinity() || cpusOf(t, a) != strconv.Itoa(last) {
		t.Error("forgotten")
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	if got := cpusOf(t, a); got != before {
		t.Errorf("left on %s", got)
	}
}
