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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/bench/figure"
	"minimega/internal/host/stage"
	"minimega/pkg/miniclient"
)

const (
	side   = 2 // clients at once
	cycles = 50
	rounds = 5
	many   = 1000
)

func main() { figure.Main(run) }

func run() error {
	ctx := context.Background()
	root, err := makeRoot()
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, c := range []string{"vm config filesystem " + root, "vm config init /pause", "vm config memory 64", "vm config net lan"} {
		if err := d.Run(ctx, c); err != nil {
			return err
		}
	}
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

// single measures whole lives, with two clients at once.
func single(ctx context.Context, d *figure.Daemon, root string) error {
	conns := make([]*miniclient.Conn, side)
	for i := range conns {
		var err error
		if conns[i], err = miniclient.Dial(ctx, d.Base); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	peer, err := newCrun(root)
	if err != nil {
		return err
	}
	defer func() { _ = peer.Close() }()
	var ours, bare, theirs []time.Duration
	for range rounds { // in turns, so that what else the machine does befalls all
		for _, side := range []struct {
			took *[]time.Duration
			do   func(worker int) error
		}{
			{&ours, func(worker int) error { return life(ctx, conns[worker], fmt.Sprintf("one%d", worker)) }},
			{&bare, func(int) error { return bareClone(filepath.Join(root, "exit")) }},
			{&theirs, peer.runner()},
		} {
			took, err := sideBySide(side.do)
			if err != nil {
				return err
			}
			*side.took = append(*side.took, took...)
		}
	}
	const what = "container: launch, start, kill, flush"
	figure.Against(what, ours, "bare clone+exec", bare, "≤ 10 ms")
	if peer != nil {
		figure.Against(what, ours, "crun run, no network", theirs, "< 1")
	}
	return nil
}

// life is all of a container's.
func life(ctx context.Context, conn *miniclient.Conn, name string) error {
	for _, c := range []string{"vm launch container ", "vm start ", "vm kill ", "vm flush "} {
		if _, err := conn.Do(ctx, c+name); err != nil {
			return fmt.Errorf("%s%s: %w", c, name, err)
		}
	}
	return nil
}

// sideBySide runs do in a loop in each of several workers, and returns how long
// each took after the first.
func sideBySide(do func(worker int) error) ([]time.Duration, error) {
	var mu sync.Mutex // guards the lists
	var took []time.Duration
	var failed []error
	var wg sync.WaitGroup
	for worker := range side {
		wg.Go(func() {
			for i := range cycles {
				t, err := figure.Time(func() error { return do(worker) })
				mu.Lock()
				failed = append(failed, err)
				if i > 0 {
					took = append(took, t)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return took, errors.Join(failed...)
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
