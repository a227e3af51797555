package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/host"
)

// briefly is how long to wait for a lock that tells of use: a process that is
// just being started holds its parent's for a moment.
const briefly = 100 * time.Millisecond

// lock takes a lock of the file at path, which it makes; see host.Lock.
func lock(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := host.Lock(ctx, f, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
