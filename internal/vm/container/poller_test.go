package container

import (
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What cannot be done just now, for want of descriptors, is done later.
func TestPollerLater(t *testing.T) {
	p, err := newPoller(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var calls atomic.Int32
	done := make(chan struct{})
	remove, err := p.add(fd, func() answer {
		if calls.Add(1) < 3 {
			return later
		}
		close(done)
		return end
	})
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	<-done
	if n := calls.Load(); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
}

// What is removed can be added again: nothing of it is left, though its file is
// still open.
func TestPollerRemove(t *testing.T) {
	p, err := newPoller(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range 2 {
		called := make(chan struct{})
		remove, err := p.add(fd, func() answer { close(called); return end })
		if err != nil {
			t.Fatal(err)
		}
		<-called
		remove()
		if remove, err = p.add(fd, func() answer { return goOn }); err != nil {
			t.Fatal(err)
		}
		remove()
	}
}

func TestAfterRefusal(t *testing.T) {
	for err, want := range map[error]answer{
		unix.EAGAIN: goOn, unix.ECONNABORTED: goOn, unix.EMFILE: later, unix.EBADF: end, fs.ErrClosed: end,
		&os.SyscallError{Syscall: "dup", Err: syscall.ENFILE}: later,
	} {
		if got := afterRefusal(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
