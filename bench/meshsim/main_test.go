package main

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

// The small version of what the program prints, with bounds.
func TestTwoHundredNodes(t *testing.T) {
	r, err := run(200, 0.1, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	r.print(&text)
	t.Log(text.String())
	for what, ok := range map[string]bool{
		"convergence within 2 s":                       r.start.took < 2*time.Second,
		"death known within 4 s":                       r.kill.took < 4*time.Second,
		"split known within 6 s, healed within 6 s":    r.split.took < 6*time.Second && r.heal.took < 6*time.Second,
		"idle below 10 kB/s":                           r.idle < 10e3,
		"start below 2 MB":                             r.start.total < 2e6,
		"state below 1 MB":                             r.state < 1e6,
		"at most 20 links":                             r.degreeMost <= 20,
		"broadcasts reach all":                         r.whole.Reached == 200 && r.after.Reached == 140,
		"broadcasts reach nearly all among the killed": r.blind.Reached >= 133,
	} {
		if !ok {
			t.Error("not so:", what)
		}
	}
}

// The same seed gives the same figures, another one does not.
func TestRepeatable(t *testing.T) {
	var all [3]*result
	for i, seed := range []uint64{7, 7, 8} {
		r, err := run(40, 0.1, seed, true)
		if err != nil {
			t.Fatal(err)
		}
		r.state = 0 // of the process
		all[i] = r
	}
	if !reflect.DeepEqual(all[0], all[1]) {
		t.Errorf("two runs of one seed differ:\n%+v\n%+v", all[0], all[1])
	}
	if reflect.DeepEqual(all[0], all[2]) {
		t.Error("the seed makes no difference")
	}
}
