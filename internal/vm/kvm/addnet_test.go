package kvm

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/vm"
)

// A daemon that dies after any step of an AddNet leaves a QEMU that the next
// one can settle: the interface is there, or it can be added at once.
func TestSettleNet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: taps")
	}
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	n := vm.NetConfig{Tap: fmt.Sprintf("tst%d", os.Getpid()), MAC: "00:00:00:11:22:33"} // QEMU makes the tap if there is none
	hosttest.Machine{Marks: []string{n.Tap}}.Check(t)
	steps := []func(*Machine, context.Context, vm.NetConfig) error{(*Machine).addNetdev, (*Machine).addNIC}
	for done := range len(steps) + 1 {
		t.Run(fmt.Sprint(done, " of 2"), func(t *testing.T) {
			s := spec(t, 1, small())
			made, err := e.Launch(ctx, s)
			if err != nil {
				t.Fatal(err)
			}
			m := made.(*Machine)
			for _, step := range steps[:done] {
				if err := step(m, ctx, n); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			next := *s
			next.Config = small()
			again, err := e.Adopt(ctx, &next, m.Pid())
			if err != nil {
				t.Fatal(err)
			}
			defer reap(m.Pid())
			m = again.(*Machine)
			defer m.Close()
			defer m.Kill(ctx)
			plugged, err := m.SettleNet(ctx, n)
			if err != nil || plugged != (done == len(steps)) {
				t.Fatalf("settled as %v, %v", plugged, err)
			}
			if !plugged {
				if err := m.AddNet(ctx, n); err != nil {
					t.Errorf("add: %v", err)
				}
			}
			if err := m.AddNet(ctx, n); err == nil {
				t.Error("added twice")
			}
			if plugged, err := m.SettleNet(ctx, n); err != nil || !plugged {
				t.Errorf("what could not be added took what was there: %v, %v", plugged, err)
			}
		})
	}
}
