package kvm

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
)

// A QEMU that was stopped cannot be reached, however often it is asked, which
// is another error than that it is none; once it goes on it is taken over.
func TestAdoptStopped(t *testing.T) {
	e := newEngine(t, tcg)
	ctx := within(t, time.Minute)
	s := spec(t, 1, small())
	m, err := e.Launch(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	defer reap(m.Pid())
	defer syscall.Kill(m.Pid(), syscall.SIGKILL)
	hosttest.Freeze(t, m.Pid())
	for range 4 {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		next := *s
		next.Config = small()
		_, err := e.Adopt(short, &next, m.Pid())
		cancel()
		if !errors.Is(err, errs.Unreachable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stopped: %v", err)
		}
	}
	if err := syscall.Kill(m.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	next := *s
	next.Config = small()
	again, err := e.Adopt(ctx, &next, m.Pid())
	for errors.Is(err, errs.Unreachable) && ctx.Err() == nil { // it first notices that the others have left
		time.Sleep(10 * time.Millisecond)
		again, err = e.Adopt(ctx, &next, m.Pid())
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Kill(ctx), again.Close()); err != nil {
		t.Error(err)
	}
}
