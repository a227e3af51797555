package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Space opens the network namespace of the container, see vm.Spaced. It is
// that of init, which can leave it no more than any other.
func (m *Machine) Space(ctx context.Context) (*os.File, error) {
	if err := m.take(ctx); err != nil { // Close waits, which closes the pidfd
		return nil, err
	}
	defer m.give()
	space, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.init.pid))
	if err == nil { // else what was opened may be of another with its pid
		err = m.init.alive()
	}
	if err != nil {
		_ = space.Close() // nil closes nothing
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			err = errs.New(errs.State, "the container has ended: %w", err)
		}
		return nil, err
	}
	return space, nil
}
