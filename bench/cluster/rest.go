package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"minimega/bench/figure"
	"minimega/internal/host/lab"
)

const (
	settle = 15 * time.Second // after the last change of the mesh
	rests  = 20 * time.Second
	tick   = 10 * time.Millisecond // unit of times in /proc/PID/stat
)

// rest measures what daemons cost that have nothing to do.
func (c *cluster) rest(ctx context.Context) error {
	all := append(c.daemons[:hosts:hosts], c.alone)
	pass := func(d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := pass(settle); err != nil {
		return err
	}
	before, began, err := used(all)
	if err != nil {
		return err
	}
	if err := pass(rests); err != nil {
		return err
	}
	after, ended, err := used(all)
	if err != nil {
		return err
	}
	var sum, worst float64
	shares := make([]float64, len(all))
	for i := range all {
		shares[i] = 100 * (after[i] - before[i]).Seconds() / ended.Sub(began).Seconds()
		if i != lone {
			sum, worst = sum+shares[i], max(worst, shares[i])
		}
	}
	figure.Alone(fmt.Sprintf("a daemon of %d at rest, mean / most, of a core", hosts), fmt.Sprintf("%.2f %% / %.2f %%", sum/hosts, worst), "<= 0.5 %")
	figure.Alone("  a daemon alone", fmt.Sprintf("%.2f %%", shares[lone]), "-")
	return c.memory()
}

// memory prints what daemons hold in memory.
func (c *cluster) memory() error {
	var sum float64
	for _, d := range c.daemons {
		m, err := resident(d)
		if err != nil {
			return err
		}
		sum += m / hosts
	}
	alone, err := resident(c.alone)
	figure.Alone(fmt.Sprintf("  memory of a daemon of %d, of one alone", hosts), fmt.Sprintf("%.0f MiB, %.0f MiB", sum, alone), "-")
	return err
}

// used returns the processor time of daemons, user and system (proc(5)).
func used(daemons []*lab.Daemon) (times []time.Duration, now time.Time, err error) {
	for _, d := range daemons {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
		if err != nil {
			return nil, now, err
		}
		_, after, _ := strings.Cut(string(text), ") ") // the name before it may hold anything
		f := strings.Fields(after)
		var user, system time.Duration
		if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
			return nil, now, err
		}
		times = append(times, (user+system)*tick)
	}
	return times, time.Now(), nil
}

// resident returns a daemon's memory in MiB.
func resident(d *lab.Daemon) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", d.PID())
}
