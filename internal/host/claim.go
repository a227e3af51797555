package host

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// claimTime is how long a lock may outlive its holder: a process that is being
// started has the descriptors of the one that starts it, and their locks, until
// it executes its program, even if the other has been killed meanwhile.
const claimTime = time.Second

// Claim takes the lock of a file (flock(2)) that only one may have, and reports
// whether it could. It is given back when the file is closed.
func Claim(f *os.File) (bool, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(claimTime); ; <-tick.C {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK) && time.Now().After(until):
			return false, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return false, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
}
