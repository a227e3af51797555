package host

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// ClaimTime is how long a lock may outlive its holder: a process that is
	// being started has the descriptors of the one that starts it, and their
	// locks, until it executes its program, even if the other has been killed
	// meanwhile.
	ClaimTime = time.Second
	// lockTick is how often a lock that somebody else holds is tried.
	lockTick = 5 * time.Millisecond
)

// Claim takes the lock of a file (see Lock) that only one may have, and reports
// whether it could within wait.
func Claim(f *os.File, wait time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	err := Lock(ctx, f, unix.LOCK_EX)
	if errors.Is(err, context.DeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// Lock takes the lock of a file (flock(2)), unix.LOCK_SH or unix.LOCK_EX, and
// waits for it until ctx ends. The kernel gives it back when the file is closed or
// the process ends. Others in this process wait like other processes.
func Lock(ctx context.Context, f *os.File, how int) error {
	tick := time.NewTicker(lockTick)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
