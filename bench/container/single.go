package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"minimega/bench/figure"
	"minimega/pkg/miniclient"
)

// inMemory is where crun, too, keeps what it knows of its containers: on a file
// system in memory, as /tmp is on many systems.
const inMemory = "/dev/shm"

// single measures whole lives, with two clients at once: with the base directory
// of d, and with one in memory.
func single(ctx context.Context, d *figure.Daemon, root string) error {
	fast, err := start(ctx, inMemory, root)
	if err != nil {
		return err
	}
	defer fast.Close()
	peer, err := newCrun(root, false)
	if err != nil {
		return err
	}
	defer func() { _ = peer.Close() }()
	bare, err := newCrun(root, true)
	if err != nil {
		return err
	}
	defer func() { _ = bare.Close() }()
	var ours, onDisk, theirs, bares, clones []time.Duration
	for range rounds { // in turns, so that what else the machine does befalls all
		for _, side := range []struct {
			took *[]time.Duration
			do   func(worker int) error
		}{
			{&ours, lives(ctx, fast)},
			{&theirs, peer.runner()},
			{&onDisk, lives(ctx, d)},
			{&bares, bare.runner()},
			{&clones, func(int) error { return bareClone(filepath.Join(root, "exit")) }},
		} {
			took, err := sideBySide(side.do)
			if err != nil {
				return err
			}
			*side.took = append(*side.took, took...)
		}
	}
	const what = "container: launch, start, kill, flush"
	figure.Alone(what, figure.Median(ours).Round(10*time.Microsecond).String(), "≤ 10 ms")
	if peer != nil {
		figure.Against(what, ours, "crun run, no network", theirs, "< 1")
		figure.Against(what+", on disk", onDisk, "the same", theirs, "< 1")
		figure.Against(what, ours, "crun run with nothing but /proc", bares, "-")
	}
	figure.Against(what, ours, "bare clone+exec", clones, "-")
	return nil
}

// lives returns what makes a whole life of a container, each worker by a
// connection of its own, which ends with the program.
func lives(ctx context.Context, d *figure.Daemon) func(worker int) error {
	var conns [side]*miniclient.Conn // each is of one worker alone
	return func(worker int) (err error) {
		if conns[worker] == nil {
			if conns[worker], err = miniclient.Dial(ctx, d.Base); err != nil {
				return err
			}
		}
		return life(ctx, conns[worker], fmt.Sprintf("one%d", worker))
	}
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
