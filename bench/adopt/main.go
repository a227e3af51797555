// Command adopt measures how long a daemon that starts after one that was
// killed takes to take over 200 machines, beside a start with none, and how
// long it takes to end these. The machines are stand-ins for QEMU that answer
// on its control socket.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"minimega/bench/figure"
)

const (
	rounds = 5
	count  = 200
)

func main() { figure.Main(run) }

func run() (err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	qemu := filepath.Join(dir, "fakeqemu")
	build := exec.Command("go", "build", "-o", qemu, "./bench/fakeqemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building fakeqemu: %w: %s", err, out)
	}
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var adopts, starts, ends []time.Duration
	for range rounds {
		start, err := crash(ctx, d)
		if err != nil {
			return err
		}
		adopt, end, err := round(ctx, d, qemu)
		if err != nil {
			return err
		}
		starts, adopts, ends = append(starts, start), append(adopts, adopt), append(ends, end)
	}
	figure.Against(fmt.Sprintf("restart: %d running VMs adopted", count), adopts, "none to adopt", starts, "< 2 s")
	figure.Alone(fmt.Sprintf("kill all and flush of the %d", count), figure.Median(ends).Round(time.Millisecond).String(), "< 3 s")
	return nil
}

// crash kills the daemon and starts another.
func crash(ctx context.Context, d *figure.Daemon) (time.Duration, error) {
	if err := d.Crash(); err != nil {
		return 0, err
	}
	return d.Restart(ctx)
}

// round launches the machines, has them adopted, and ends them.
func round(ctx context.Context, d *figure.Daemon, qemu string) (adopt, end time.Duration, err error) {
	for _, c := range []string{"vm config qemu " + qemu, "vm config memory 16", "vm config backchannel false", "vm config networks lan",
		fmt.Sprintf("vm launch kvm vm[1-%d]", count), "vm start all"} {
		if err := d.Run(ctx, c); err != nil {
			return 0, 0, err
		}
	}
	if adopt, err = crash(ctx, d); err != nil {
		return 0, 0, err
	}
	answer, err := d.Conn.Do(ctx, ".columns state .filter state=RUNNING vm info")
	if err != nil {
		return 0, 0, err
	}
	if n := len(answer[0].Resp[0].Tabular); n != count {
		return 0, 0, fmt.Errorf("%d of %d VMs were adopted", n, count)
	}
	end, err = figure.Time(func() error { return errors.Join(d.Run(ctx, "vm kill all"), d.Run(ctx, "vm flush")) })
	return adopt, end, err
}
