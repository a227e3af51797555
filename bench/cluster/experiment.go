package main

import (
	"context"
	"fmt"
	"time"

	"minimega/bench/figure"
	"minimega/internal/host/lab"
)

const containers = 100

// experiment launches containers over all hosts, and as many on the one that
// is alone, turn by turn; and asks for them.
func (c *cluster) experiment(ctx context.Context) error {
	for _, d := range []*lab.Daemon{c.daemons[0], c.alone} {
		for _, command := range []string{"namespace exp", "vm config filesystem " + c.root, "vm config memory 64", "vm config net lan"} {
			if err := do(ctx, d, command); err != nil {
				return err
			}
		}
	}
	if err := do(ctx, c.daemons[0], "ns add-hosts localhost"); err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for round := range launches {
		for d, took := range map[*lab.Daemon]*[]time.Duration{c.daemons[0]: &ours, c.alone: &theirs} {
			if round > 0 {
				if err := c.clear(ctx, d); err != nil {
					return err
				}
			}
			t, err := figure.Time(func() error { return launch(ctx, d) })
			if err != nil {
				return err
			}
			*took = append(*took, t)
		}
	}
	figure.Against(fmt.Sprintf("%d containers launched and started on %d hosts", containers, hosts), ours, "on one", theirs, "-")
	if err := c.against(ctx, "ns run version", "version", "-"); err != nil {
		return err
	}
	return c.against(ctx, "vm info", "vm info", "-")
}

func launch(ctx context.Context, d *lab.Daemon) error {
	if err := do(ctx, d, fmt.Sprintf("vm launch container c[1-%d]", containers)); err != nil {
		return err
	}
	return do(ctx, d, "vm start all")
}

// clear ends the containers and waits until none is left.
func (c *cluster) clear(ctx context.Context, d *lab.Daemon) error {
	if err := do(ctx, d, "vm kill all"); err != nil {
		return err
	}
	return do(ctx, d, "vm flush")
}
