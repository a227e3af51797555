package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"minimega/internal/vm"
)

// limited makes a bench in version 2 of control groups with all controllers, as
// tests.TestUnderDebiansKernel has it.
func limited(t *testing.T, o Options) *bench {
	t.Helper()
	dir := unified(t)
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(have)), c) {
			t.Skipf("version 2 of control groups has no controller %s here", c)
		}
	}
	o.Cgroups = dir
	return newBenchWith(t, o)
}

// number reads a number of a group's file: the only one, or that after a word.
func (b *bench) number(dir, file, word string) int64 {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if word != "" && (len(f) != 2 || f[0] != word) {
			continue
		}
		n, err := strconv.ParseInt(f[len(f)-1], 10, 64)
		if err != nil {
			b.t.Fatalf("%s: %v", file, err)
		}
		return n
	}
	b.t.Fatalf("%s has no %s: %s", file, word, text)
	return 0
}

// owner is the group of all containers of the bench, which counts what happens
// in them.
func (b *bench) owner() string { return filepath.Join(unified(b.t), groupParent(b.base)) }

// A container that wants more memory than it has loses processes, init if it
// was that, while others and the host have what they had.
func TestUnifiedMemory(t *testing.T) {
	b := limited(t, Options{})
	other := b.start(b.config("count"))
	b.succeeds(b.config("memory"))
	if n := b.number(b.owner(), "memory.events", "oom_kill"); n != 1 {
		t.Errorf("%d processes were killed for memory, want 1", n)
	}
	m := b.start(b.config("memory", "child"))
	select {
	case <-m.Done():
	case <-time.After(time.Minute):
		t.Fatal("it has more memory than its limit")
	}
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("it ended with %v", err)
	}
	if n := b.number(b.owner(), "memory.events", "oom_kill"); n != 2 {
		t.Errorf("%d processes were killed for memory, want 2", n)
	}
	before := other.shown()
	until(t, "more of the other container", func() bool { return other.shown() != before })
}

// A fork bomb stops at the limit, which is its own: others can still fork.
func TestUnifiedPids(t *testing.T) {
	b := limited(t, Options{Pids: 20})
	m := b.start(b.config("bomb"))
	until(t, "a fork that is refused", func() bool { return b.number(m.group.Dir(), "pids.events", "max") > 0 })
	b.succeeds(b.config("forks", "20"))
	// For a moment the kernel counts also those that it is about to refuse.
	until(t, "20 processes", func() bool { return b.number(m.group.Dir(), "pids.current", "") == 20 })
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.group.Dir()); err == nil {
		t.Error("its group is left")
	}
}

// A container of one processor gets the time of one, with threads for two.
func TestUnifiedCPU(t *testing.T) {
	b := limited(t, Options{})
	share := map[uint64]float64{}
	for _, cpus := range []uint64{1, 2} {
		c := b.config("burn")
		c.VCPUs = cpus
		m := b.start(c)
		until(t, "ready", func() bool { return strings.Contains(m.shown(), "ready") })
		dir := m.group.Dir()
		enough := func() bool {
			used, start := b.number(dir, "cpu.stat", "usage_usec"), time.Now()
			time.Sleep(3 * time.Second)
			used, took := b.number(dir, "cpu.stat", "usage_usec")-used, time.Since(start)
			share[cpus] = max(share[cpus], float64(used)/float64(took.Microseconds()))
			throttled := b.number(dir, "cpu.stat", "nr_throttled")
			t.Logf("%d CPUs: %.2f s of CPU time per second, throttled in %d periods", cpus, share[cpus], throttled)
			return cpus == 1 && throttled > 0 || cpus == 2 && share[2] >= 1.4
		}
		for tries := 1; !enough(); tries++ { // a busy machine gives less than the limit
			if tries == 30 {
				t.Error("it was never throttled, or has less than it may")
				break
			}
		}
		if err := m.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// In three seconds there are parts of up to four periods of a second.
	if share[1] > 4.0/3+0.05 {
		t.Errorf("a limit of one CPU gives %.2f", share[1])
	}
}

// A frozen container uses no CPU time at all, and goes on where it was.
func TestUnifiedFreeze(t *testing.T) {
	b := limited(t, Options{})
	m := b.start(b.config("burn"))
	until(t, "ready", func() bool { return strings.Contains(m.shown(), "ready") })
	for range 3 {
		if err := m.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		// A process counts as frozen a few instructions before it is.
		used := int64(0)
		until(t, "the end of work", func() bool {
			before := b.number(m.group.Dir(), "cpu.stat", "usage_usec")
			time.Sleep(50 * time.Millisecond)
			used = b.number(m.group.Dir(), "cpu.stat", "usage_usec")
			return used == before
		})
		time.Sleep(300 * time.Millisecond)
		if more := b.number(m.group.Dir(), "cpu.stat", "usage_usec") - used; more != 0 {
			t.Errorf("%d µs of CPU time while frozen", more)
		}
		if err := m.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		until(t, "work", func() bool { return b.number(m.group.Dir(), "cpu.stat", "usage_usec") > used })
	}
}

// A later daemon finds the limits of a container in force, its pause too, and
// removes its group with it.
func TestUnifiedAdopted(t *testing.T) {
	b := limited(t, Options{Pids: 33})
	c := b.config("count")
	c.VCPUs = 2
	s := b.spec(c)
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return first.Start(t.Context()) }, func() error { return first.Stop(t.Context()) }, first.Close,
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	second := New(Options{Base: b.base, Cgroups: unified(t), Pids: 44}, b.engine.log) // for later ones
	t.Cleanup(func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	again, err := second.Adopt(t.Context(), s, first.(*Machine).keeper.pid)
	if err != nil {
		t.Fatal(err)
	}
	b.endAfter(again)
	m := again.(*Machine)
	if state, err := m.Status(t.Context()); state != vm.Paused || err != nil {
		t.Errorf("%v %v", state, err)
	}
	dir := m.group.Dir()
	for file, want := range map[string]string{"cpu.max": "2000000 1000000", "memory.max": fmt.Sprint(64 << 20), "memory.swap.max": "0", "pids.max": "33"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if file == "memory.swap.max" && os.IsNotExist(err) {
			continue // a kernel without swap
		}
		if got := strings.TrimSpace(string(text)); got != want || err != nil {
			t.Errorf("%s is %q, %v; want %q", file, got, err, want)
		}
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := m.shown()
	until(t, "more", func() bool { return m.shown() != before })
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("its group is left")
	}
}
