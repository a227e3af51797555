// Command container measures containers with one network interface, from one
// to a thousand, beside crun (if it is installed) given the same root file
// system without a network, and beside a bare loop of clone and exec. Arguments
// choose measurements: single, thousand, growth; without, all are made.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"minimega/bench/figure"
	"minimega/internal/host/stage"
)

const (
	side   = 2 // clients at once
	cycles = 50
	rounds = 5
	many   = 1000
	memory = 64 // MiB
)

func main() { figure.Main(run) }

func run() error {
	ctx := context.Background()
	root, err := makeRoot()
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	d, err := start(ctx, "", root)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, m := range []struct {
		name string
		do   func(context.Context, *figure.Daemon, string) error
	}{{"single", single}, {"thousand", thousand}, {"growth", growth}} {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], m.name) {
			continue
		}
		if err := m.do(ctx, d, root); err != nil {
			return err
		}
	}
	return nil
}

// start starts a daemon whose base directory is below parent, and says what
// containers it is to launch.
func start(ctx context.Context, parent, root string) (*figure.Daemon, error) {
	d, err := figure.StartDaemonIn(ctx, parent)
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"vm config filesystem " + root, "vm config init /pause", fmt.Sprintf("vm config memory %d", memory), "vm config net lan"} {
		if err := d.Run(ctx, c); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// makeRoot makes a root file system of two programs: one that waits for ever
// and one that ends at once.
func makeRoot() (string, error) {
	root, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return "", err
	}
	for _, dir := range []string{"dev", "proc", "sys"} { // crun wants them
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return "", errors.Join(err, os.RemoveAll(root))
		}
	}
	for name, call := range map[string]stage.Call{"pause": {Nr: unix.SYS_PPOLL}, "exit": {Nr: unix.SYS_EXIT_GROUP}} {
		var p stage.Program
		p.Add(call)
		image, err := p.Image()
		if err == nil {
			err = os.WriteFile(filepath.Join(root, name), image, 0o755)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(root))
		}
	}
	return root, os.Chmod(root, 0o755)
}

// thousand measures many at once, what they need, and what they leave.
func thousand(ctx context.Context, d *figure.Daemon, _ string) error {
	var ups, downs []time.Duration
	var daemon, total []float64
	var before, after traces
	for i := range rounds {
		free, rss := available(), must(d.RSS())
		up, err := figure.Time(func() error {
			return errors.Join(d.Run(ctx, fmt.Sprintf("vm launch container %d", many)), d.Run(ctx, "vm start all"))
		})
		if err != nil {
			return err
		}
		daemon = append(daemon, (must(d.RSS())-rss)*1024/many)
		total = append(total, (free-available())/many)
		down, err := figure.Time(func() error { return errors.Join(d.Run(ctx, "vm kill all"), d.Run(ctx, "vm flush")) })
		if err != nil {
			return err
		}
		ups, downs = append(ups, up), append(downs, down)
		if after, err = settled(d); err != nil {
			return err
		}
		if i == 0 {
			before = after
		}
	}
	figure.Alone(fmt.Sprintf("container: %d launched and started", many), figure.Median(ups).Round(time.Millisecond).String(), "≤ 10 s")
	figure.Alone(fmt.Sprintf("container: %d killed and flushed", many), figure.Median(downs).Round(time.Millisecond).String(), "≤ 5 s")
	figure.Alone("container: memory of the daemon for each", fmt.Sprintf("%.1f KiB", daemon[0]), "≤ 50 KiB")
	figure.Alone("container: memory of the host for each, idle", fmt.Sprintf("%.0f KiB", figure.Median(total)), "≤ 1024 KiB")
	figure.Alone(fmt.Sprintf("container: left after %d more rounds", rounds-1), after.minus(before), "nothing")
	return nil
}

// growth compares the tenth launch with the last of many.
func growth(ctx context.Context, d *figure.Daemon, _ string) error {
	var took []time.Duration
	for i := range many {
		t, err := figure.Time(func() error { return d.Run(ctx, fmt.Sprintf("vm launch container g%d", i)) })
		if err != nil {
			return err
		}
		took = append(took, t)
	}
	figure.Against(fmt.Sprintf("container: launch around the %dth", many), took[many-11:], "around the 10th", took[5:16], "≤ 1.5")
	return errors.Join(d.Run(ctx, "vm kill all"), d.Run(ctx, "vm flush"))
}

func must(v float64, err error) float64 {
	if err != nil {
		panic(err)
	}
	return v
}
