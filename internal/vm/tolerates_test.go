package vm_test

import (
	"context"
	"math"
	"testing"
)

// The most demanding of the VMs that live counts, and what all were promised
// is summed up.
func TestTolerates(t *testing.T) {
	w := newWorld(t)
	step := func(want int) {
		t.Helper()
		if got := w.Tolerates(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	step(0)
	for i, c := range []struct {
		coschedule int64
		name       string
		want       int
	}{{-1, "a", 0}, {math.MaxInt64, "b", 0}, {9, "c", 10}, {3, "d", 4}, {5, "e", 4}, {0, "f", 1}} {
		config := withNets(101)
		config.VCPUs, config.Memory, config.Coschedule = 2, 64, c.coschedule
		if err := w.launch(t, config, c.name); err != nil {
			t.Fatal(err)
		}
		step(c.want)
		if cpus, mem, nics, n := w.Commit(); cpus != 2*(i+1) || mem != 64*(i+1) || nics != i+1 || n != i+1 {
			t.Errorf("committed %d, %d, %d, %d", cpus, mem, nics, n)
		}
	}
	for _, c := range []struct {
		name string
		want int
	}{{"f", 4}, {"d", 6}, {"e", 10}, {"c", 0}} {
		if err := w.Kill(context.Background(), "ns", c.name); err != nil {
			t.Fatal(err)
		}
		step(c.want)
	}
}
