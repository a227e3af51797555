package scheduler

import (
	"errors"
	"math"
	"testing"

	"minimega/internal/errs"
)

func TestLimits(t *testing.T) {
	var l Limits
	if got := l.String(); got != "cpu none, memory none, vms none" {
		t.Errorf("got %s", got)
	}
	for _, c := range [][2]string{{"cpu", "2"}, {"memory", "1.25"}, {"vms", "100"}} {
		if err := l.Set(c[0], c[1]); err != nil {
			t.Error(err)
		}
	}
	if l != (Limits{2, 1.25, 100}) || l.String() != "cpu 2, memory 1.25, vms 100" {
		t.Errorf("got %+v, %s", l, l)
	}
	for _, c := range [][2]string{{"cpu", ""}, {"cpu", "0"}, {"cpu", "-1"}, {"cpu", "NaN"}, {"memory", "Inf"}, {"memory", "1001"}, {"memory", "1e-9"},
		{"vms", "0"}, {"vms", "1.5"}, {"vms", "1000001"}, {"vms", "x"}, {"disk", "1"}} {
		before := l
		if err := l.Set(c[0], c[1]); !errors.Is(err, errs.Invalid) || l != before {
			t.Errorf("%v: %v, %+v", c, err, l)
		}
	}
	for _, what := range LimitNames() {
		if err := l.Set(what, "none"); err != nil {
			t.Error(err)
		}
	}
	if l != (Limits{}) {
		t.Errorf("got %+v", l)
	}
}

func TestMost(t *testing.T) {
	for _, c := range []struct {
		ratio   float64
		present int
		want    int
	}{{0, 5, math.MaxInt}, {1, 0, 0}, {0.1, 10, 1}, {1.1, 10, 11}, {0.29, 100, 29}, {1.5, 3, 4}, {1000, 1 << 60, math.MaxInt}} {
		if got := most(c.ratio, c.present); got != c.want {
			t.Errorf("%v of %d: got %d, want %d", c.ratio, c.present, got, c.want)
		}
	}
}

// What Set takes, Value gives back.
func FuzzLimits(f *testing.F) {
	for _, s := range []string{"1", "1.50", "none", "0x1p3", "1_0", "-0", "NaN", "1e3", "+1"} {
		f.Add("cpu", s)
		f.Add("memory", s)
		f.Add("vms", s)
	}
	f.Fuzz(func(t *testing.T, what, value string) {
		var l, again Limits
		if l.Set(what, value) != nil {
			return
		}
		if err := again.Set(what, l.Value(what)); err != nil || again != l {
			t.Errorf("%s %s: %+v, then %+v, %v", what, value, l, again, err)
		}
		if l.CPU < 0 || l.Memory < 0 || l.VMs < 0 || l.CPU > maxRatio || l.Memory > maxRatio || l.VMs > maxCount {
			t.Errorf("%+v", l)
		}
	})
}
