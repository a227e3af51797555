package kvm

import (
	"errors"
	"sync"
	"testing"
	"time"

	"minimega/internal/vm"
)

// TestManyAtOnce launches VMs side by side and kills them.
func TestManyAtOnce(t *testing.T) {
	const n = 50
	e := newEngine(t, tcg)
	specs := make([]*vm.Spec, n)
	for i := range specs {
		specs[i] = spec(t, 100+i, small())
	}
	machines := make([]vm.Machine, n)
	start := time.Now()
	parallel(n, func(i int) {
		m, err := e.Launch(within(t, 5*time.Minute), specs[i])
		if err != nil {
			t.Error(err)
			return
		}
		machines[i] = m
	})
	launched := time.Since(start)
	start = time.Now()
	parallel(n, func(i int) {
		if m := machines[i]; m != nil {
			if err := errors.Join(m.Kill(within(t, 5*time.Minute)), m.Err(), m.Close()); err != nil {
				t.Error(err)
			}
		}
	})
	t.Logf("%d VMs: launched %v, killed %v", n, launched, time.Since(start))
}

// parallel runs do for 0…n-1, eight at a time.
func parallel(n int, do func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			do(i)
			<-slots
		})
	}
	wg.Wait()
}
