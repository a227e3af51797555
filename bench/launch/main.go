// Command launch measures 50 VMs without disks, launched and paused, beside a
// bare loop that starts the same QEMU processes with the same parallelism, and
// how long it takes to end them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"minimega/bench/figure"
)

const (
	rounds = 5
	count  = 50
)

func main() { figure.Main(run) }

func run() error {
	ctx := context.Background()
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, c := range []string{"vm config memory 128", "vm config backchannel false"} {
		if err := d.Run(ctx, c); err != nil {
			return err
		}
	}
	var ours, theirs, ends, nics []time.Duration
	for i := range rounds + 1 { // the first round warms the caches of both
		args, err := arguments(ctx, d)
		if err != nil {
			return err
		}
		l, e, err := launchAndEnd(ctx, d)
		if err != nil {
			return err
		}
		b, err := bareLoop(args)
		if err != nil {
			return err
		}
		if i > 0 {
			ours, ends, theirs = append(ours, l), append(ends, e), append(theirs, b)
		}
	}
	if err := d.Run(ctx, "vm config networks lan"); err != nil {
		return err
	}
	var nicEnds []time.Duration
	for range rounds {
		l, e, err := launchAndEnd(ctx, d)
		if err != nil {
			return err
		}
		nics, nicEnds = append(nics, l), append(nicEnds, e)
	}
	figure.Against(fmt.Sprintf("launch: %d diskless VMs, paused", count), ours, "bare loop", theirs, "≤ 1.3")
	figure.Against("launch: the same, a tap each", nics, "bare loop without", theirs, "none")
	figure.Alone(fmt.Sprintf("kill and flush of the %d", count), figure.Median(ends).Round(time.Millisecond).String(), "< 2 s")
	figure.Alone(fmt.Sprintf("kill and flush of the %d with taps", count), figure.Median(nicEnds).Round(time.Millisecond).String(), "< 2 s")
	return nil
}

func launchAndEnd(ctx context.Context, d *figure.Daemon) (launch, end time.Duration, err error) {
	if launch, err = figure.Time(func() error { return d.Run(ctx, fmt.Sprintf("vm launch kvm %d", count)) }); err != nil {
		return
	}
	end, err = figure.Time(func() error { return errors.Join(d.Run(ctx, "vm kill all"), d.Run(ctx, "vm flush")) })
	return
}

// arguments returns the command line of one of the daemon's VMs.
func arguments(ctx context.Context, d *figure.Daemon) ([]string, error) {
	if err := d.Run(ctx, "vm launch kvm model"); err != nil {
		return nil, err
	}
	pids, err := filepath.Glob(filepath.Join(d.Base, "*", "qemu.pid"))
	if err != nil || len(pids) != 1 {
		return nil, fmt.Errorf("expected one qemu.pid, found %v, %v", pids, err)
	}
	pid, err := os.ReadFile(pids[0])
	if err != nil {
		return nil, err
	}
	line, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline")
	if err != nil {
		return nil, err
	}
	exe, err := os.Readlink("/proc/" + strings.TrimSpace(string(pid)) + "/exe")
	if err != nil {
		return nil, err
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	args[0] = exe
	dir := filepath.Dir(pids[0])
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], dir, "DIR")
	}
	return args, errors.Join(d.Run(ctx, "vm kill model"), d.Run(ctx, "vm flush"))
}

// bareLoop starts the same processes, waits until each answers on its control
// socket, and ends them; only the start is measured.
func bareLoop(args []string) (time.Duration, error) {
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmds := make([]*exec.Cmd, count)
	failed := make([]error, count)
	slots := make(chan struct{}, 2*runtime.NumCPU()) // as the daemon
	start := time.Now()
	var wg sync.WaitGroup
	for i := range count {
		slots <- struct{}{}
		wg.Go(func() {
			cmds[i], failed[i] = startQEMU(args, fmt.Sprintf("%s/%d", dir, i))
			<-slots
		})
	}
	wg.Wait()
	took := time.Since(start)
	for _, c := range cmds {
		if c != nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	return took, errors.Join(failed...)
}

func startQEMU(args []string, dir string) (*exec.Cmd, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	own := make([]string, len(args))
	for i := range args {
		own[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	c := exec.Command(own[0], own[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // as the daemon: the kernel shares the processor by session
	if err := c.Start(); err != nil {
		return nil, err
	}
	for range 10_000 {
		if conn, err := net.Dial("unix", dir+"/qmp"); err == nil {
			_, err = io.ReadAtLeast(conn, make([]byte, 64), 10) // the greeting
			return c, errors.Join(err, conn.Close())
		}
		time.Sleep(time.Millisecond)
	}
	return c, errors.New("QEMU does not answer")
}
