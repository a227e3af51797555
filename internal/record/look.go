package record

import (
	"context"
	"errors"
	"fmt"
	"image"
	"time"

	"minimega/pkg/vnc"
)

// lookEvery is the time between two looks at the screen.
const lookEvery = time.Second

// waitFor looks at the screen until it shows the picture, and returns where.
func (p *player) waitFor(ctx context.Context, timeout time.Duration, name string) (image.Point, error) {
	template, err := loadTemplate(p.script.resolve, name)
	if err != nil {
		return image.Point{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p.clock.waiting(cancel)
	at, err := p.watch(ctx, template)
	skipped := p.clock.waiting(nil)
	switch {
	case skipped:
		return at, errSkipped
	case errors.Is(err, context.DeadlineExceeded):
		return at, fmt.Errorf("the screen did not show %.60s within %s", name, timeout)
	}
	return at, err
}

// watch looks at the screen until it shows template or ctx ends.
func (p *player) watch(ctx context.Context, template *grey) (image.Point, error) {
	c, err := vnc.Dial(ctx, p.target.Proxy.Dial, vnc.Options{})
	if err != nil {
		return image.Point{}, err
	}
	defer c.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		screen, err := c.Capture(ctx)
		if err == nil {
			if at, ok := find(ctx, toGrey(screen), template); ok {
				return at, nil
			}
		} else if ctx.Err() == nil {
			return image.Point{}, fmt.Errorf("look at the screen: %w", err)
		}
		select {
		case <-ctx.Done():
			return image.Point{}, ctx.Err()
		case <-tick.C:
		}
	}
}
