package figure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"minimega/pkg/miniclient"
)

// Daemon is the real program, started for a benchmark.
type Daemon struct {
	Base string
	Conn *miniclient.Conn
	// Start is how long it took from the start of the process to the socket.
	Start time.Duration

	cmd *exec.Cmd
	dir string
}

// program is what `make build` made.
const program = "bin/minimega"

// StartDaemon starts bin/minimega in a directory of its own.
func StartDaemon(ctx context.Context) (*Daemon, error) { return StartDaemonIn(ctx, "") }

// StartDaemonIn makes that directory in parent, "" for where temporary files are.
func StartDaemonIn(ctx context.Context, parent string) (*Daemon, error) {
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%w (run `make build` first, and this from the top of the tree)", err)
	}
	dir, err := os.MkdirTemp(parent, "mmbench")
	if err != nil {
		return nil, err
	}
	d := &Daemon{Base: filepath.Join(dir, "base"), dir: dir}
	d.cmd = exec.Command(program, "-nostdin", "-base", d.Base)
	d.cmd.Stderr = os.Stderr
	start := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if d.Conn, err = miniclient.Dial(ctx, d.Base); err == nil {
			d.Start = time.Since(start)
			return d, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, d.Close())
		case <-time.After(time.Millisecond):
		}
	}
}

// RSS returns the daemon's resident memory in MiB.
func (d *Daemon) RSS() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("no VmRSS in /proc/PID/status")
}

// Files returns how many descriptors the daemon has open.
func (d *Daemon) Files() (int, error) {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	return len(list), err
}

// Run runs a command and returns the first error in its answer.
func (d *Daemon) Run(ctx context.Context, command string) error {
	_, err := d.Conn.Do(ctx, command)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// Close ends the daemon and removes its directory.
func (d *Daemon) Close() error {
	if d.Conn != nil {
		_ = d.Conn.Close()
	}
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	return errors.Join(err, d.cmd.Wait(), os.RemoveAll(d.dir))
}
