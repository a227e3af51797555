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

	"minimega/internal/host/lab"
)

const (
	hosts    = 10
	lone     = hosts // the host beside them
	program  = "bin/minimega"
	patience = 30 * time.Second
)

// cluster is the hosts, and what runs on them.
type cluster struct {
	lab     *lab.Lab
	binary  string
	flags   []string // of the daemons in the mesh
	root    string   // file system of containers
	daemons []*lab.Daemon
	alone   *lab.Daemon
}

func newCluster(ctx context.Context) (*cluster, error) {
	binary, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w (run `make build` first, and this from the top of the tree)", err)
	}
	l, err := lab.New(ctx, lab.Options{Hosts: hosts + 1})
	if err != nil {
		return nil, err
	}
	key := filepath.Join(l.Dir, "key")
	c := &cluster{lab: l, binary: binary, flags: []string{"-mesh-key", key}, root: filepath.Join(l.Dir, "root")}
	for _, args := range [][]string{{"mesh", "key", key}, {"guest", "rootfs", "-o", c.root}} {
		if out, err := l.Hosts[lone].Command(ctx, binary, args...).CombinedOutput(); err != nil {
			return nil, c.close(fmt.Errorf("minimega %v: %w: %s", args, err, out))
		}
	}
	if c.alone, err = l.Hosts[lone].Start(ctx, binary); err != nil {
		return nil, c.close(err)
	}
	return c, nil
}

// close leaves nothing, and adds what goes wrong to err.
func (c *cluster) close(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, h := range c.lab.Hosts {
		err = errors.Join(err, h.Join()) // where its cable is cut
	}
	for _, d := range append(c.daemons, c.alone) {
		if d != nil && d.Running() {
			err = errors.Join(err, do(ctx, d, "clear all"))
		}
	}
	err = errors.Join(err, c.stop())
	if c.alone != nil {
		err = errors.Join(err, c.alone.Stop())
	}
	return errors.Join(err, c.lab.Close())
}

// start starts the daemons of the mesh at the same time, and returns when the
// last was.
func (c *cluster) start(ctx context.Context) (last time.Time, err error) {
	c.daemons = make([]*lab.Daemon, hosts)
	began, failed := make([]time.Time, hosts), make([]error, hosts)
	var starting sync.WaitGroup
	for i, h := range c.lab.Hosts[:hosts] {
		starting.Go(func() {
			began[i] = time.Now()
			c.daemons[i], failed[i] = h.Start(ctx, c.binary, c.flags...)
		})
	}
	starting.Wait()
	return slices.MaxFunc(began, time.Time.Compare), errors.Join(failed...)
}

// stop ends the daemons of the mesh.
func (c *cluster) stop() error {
	errs := make([]error, len(c.daemons))
	var stopping sync.WaitGroup
	for i, d := range c.daemons {
		if d != nil {
			stopping.Go(func() { errs[i] = d.Stop() })
		}
	}
	stopping.Wait()
	c.daemons = nil
	return errors.Join(errs...)
}

// see waits until each of the daemons sees so many hosts, itself included.
func (c *cluster) see(ctx context.Context, size int, daemons []*lab.Daemon) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for _, d := range daemons {
		for {
			got, err := sees(ctx, d)
			if err != nil {
				return err
			}
			if got == size {
				break
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("%s sees %d hosts, not %d, after %v\n%s", d.Host.Name, got, size, patience, d.Output())
			}
		}
	}
	return nil
}

func sees(ctx context.Context, d *lab.Daemon) (size int, err error) {
	answers, err := d.Conn().Do(ctx, "mesh status")
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(answers[0].Resp[0].Tabular[0][0], &size)
	return size, err
}

// do runs a command on a daemon's own connection.
func do(ctx context.Context, d *lab.Daemon, command string) error {
	if _, err := d.Conn().Do(ctx, command); err != nil {
		return fmt.Errorf("%s: %s: %w", d.Host.Name, command, err)
	}
	return nil
}
