package figure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"minimega/pkg/miniclient"
)

// Crash kills the daemon, and leaves all that it has made.
func (d *Daemon) Crash() error {
	_ = d.Conn.Close()
	d.Conn = nil
	err := d.cmd.Process.Kill()
	var exit *exec.ExitError
	if wait := d.cmd.Wait(); !errors.As(wait, &exit) {
		err = errors.Join(err, fmt.Errorf("end of the daemon: %w", wait))
	}
	return err
}

// Restart starts a daemon on the directory of one that crashed. It returns how
// long it took from the start of the process to the socket.
func (d *Daemon) Restart(ctx context.Context) (time.Duration, error) {
	d.cmd = exec.Command(program, "-nostdin", "-base", d.Base)
	d.cmd.Stderr = os.Stderr
	start := time.Now()
	if err := d.cmd.Start(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var err error
		if d.Conn, err = miniclient.Dial(ctx, d.Base); err == nil {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(time.Millisecond):
		}
	}
}
