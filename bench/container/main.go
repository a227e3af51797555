// Command container measures containers with one network interface, from one
// to a thousand, beside crun (if it is installed) given the same root file
// system without a network, and beside a bare loop of clone and exec.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	for _, measure := range []func(context.Context, *figure.Daemon, string) error{single, thousand, growth} {
		if err := measure(ctx, d, root); err != nil {
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
	ours, err := sideBySide(func(worker int) error {
		name := fmt.Sprintf("one%d", worker)
		for _, c := range []string{"vm launch container ", "vm start ", "vm kill ", "vm flush "} {
			if _, err := conns[worker].Do(ctx, c+name); err != nil {
				return fmt.Errorf("%s%s: %w", c, name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	bare, err := sideBySide(func(int) error { return bareClone(filepath.Join(root, "exit")) })
	if err != nil {
		return err
	}
	what := "container: launch, start, kill, flush"
	figure.Against(what, ours, "bare clone+exec", bare, "≤ 10 ms")
	peer, err := newCrun(root)
	if err != nil || peer == nil {
		return err
	}
	theirs, err := sideBySide(peer.run)
	if err != nil {
		return errors.Join(err, peer.Close())
	}
	figure.Against(what, ours, "crun run, no network", theirs, "< 1")
	return peer.Close()
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
		if after, err = look(d); err != nil {
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
