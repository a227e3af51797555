// Command cluster measures ten daemons, the real program, on ten hosts of their
// own that are namespaces of this machine, beside one daemon that is alone on
// an eleventh: how fast they know each other and miss one who died, what a
// command on all of them takes, what they cost at rest, and a launch of a
// hundred containers over all of them. It needs root, and `make build` before.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"minimega/bench/figure"
)

// How often each is measured.
const (
	starts   = 7
	deathsOf = 5
	commands = 200
	launches = 5
)

func main() { figure.Main(run) }

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c, err := newCluster(ctx)
	if err != nil {
		return err
	}
	defer func() { err = c.close(err) }()
	for _, step := range []func(context.Context) error{c.meetings, c.sends, c.rest, c.deaths, c.experiment} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// meetings starts all daemons, again and again.
func (c *cluster) meetings(ctx context.Context) error {
	var took []time.Duration
	for round := range starts {
		if round > 0 {
			if err := c.stop(); err != nil {
				return err
			}
		}
		last, err := c.start(ctx)
		if err != nil {
			return err
		}
		if err := c.see(ctx, hosts, c.daemons); err != nil {
			return err
		}
		took = append(took, time.Since(last))
	}
	spread(fmt.Sprintf("%d hosts know all, from the last start", hosts), took, "<= 1 s")
	return nil
}

// spread prints the middle and the worst of a few.
func spread(what string, took []time.Duration, target string) {
	figure.Alone(what+", p50 / worst", fmt.Sprintf("%v / %v", figure.Median(took).Round(time.Millisecond/10), figure.Quantile(took, 1).Round(time.Millisecond/10)), target)
}

// sends measures a command that all other hosts run.
func (c *cluster) sends(ctx context.Context) error {
	return c.against(ctx, "mesh send all version", "version", "<= 10 ms")
}

// against measures a command on the first host beside one on the host that is
// alone, turn by turn.
func (c *cluster) against(ctx context.Context, command, alone, target string) error {
	var ours, theirs []time.Duration
	for range commands {
		t, err := figure.Time(func() error { return do(ctx, c.daemons[0], command) })
		if err != nil {
			return err
		}
		ours = append(ours, t)
		if t, err = figure.Time(func() error { return do(ctx, c.alone, alone) }); err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	figure.Against(fmt.Sprintf("`%s` on %d hosts, p50", command, hosts), ours, "`"+alone+"` on one", theirs, target)
	p99 := func(took []time.Duration) time.Duration {
		return figure.Quantile(took, 0.99).Round(10 * time.Microsecond)
	}
	figure.Alone("  p99, and on one", fmt.Sprintf("%v, %v", p99(ours), p99(theirs)), "-")
	return nil
}

// deaths ends one host again and again, in two ways, and brings it back.
func (c *cluster) deaths(ctx context.Context) error {
	last := hosts - 1
	h := c.lab.Hosts[last]
	for _, way := range []struct {
		name      string
		end, back func() error
	}{
		{"a daemon killed",
			func() error { c.daemons[last].Kill(); return nil },
			func() (err error) { c.daemons[last], err = h.Start(ctx, c.binary, c.flags...); return err }},
		{"a cable cut without a word", h.Cut, h.Join},
	} {
		var took []time.Duration
		for range deathsOf {
			began := time.Now()
			if err := way.end(); err != nil {
				return err
			}
			if err := c.see(ctx, hosts-1, c.daemons[:last]); err != nil {
				return err
			}
			took = append(took, time.Since(began))
			if err := way.back(); err != nil {
				return err
			}
			if err := c.see(ctx, hosts, c.daemons); err != nil {
				return err
			}
		}
		spread(fmt.Sprintf("%s, known to all %d others", way.name, hosts-1), took, "<= 3 s")
	}
	return nil
}
