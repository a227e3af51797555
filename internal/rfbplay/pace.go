package rfbplay

import (
	"context"
	"time"
)

// pace plays a recording in real time.
type pace struct {
	rec  *recording
	tick *time.Ticker
	from time.Duration // where the recording stood at base
	base time.Time
	ran  bool
}

// newPace starts at an offset; the first next goes there at once.
func newPace(rec *recording, from, period time.Duration) *pace {
	return &pace{rec: rec, tick: time.NewTicker(period), from: from, base: time.Now()}
}

// next waits for the next period and brings the recording there.
func (p *pace) next(ctx context.Context) (change, error) {
	if p.ran {
		select {
		case <-ctx.Done():
			return change{}, ctx.Err()
		case <-p.tick.C:
		}
	} else {
		p.ran = true
		c, err := p.rec.advance(p.from)
		p.base = time.Now() // going there may have taken a while
		return c, err
	}
	return p.rec.advance(p.from + time.Since(p.base))
}

func (p *pace) close() { p.tick.Stop() }
