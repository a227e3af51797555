package iomeshage

import (
	"context"
	"slices"
	"sync"
	"time"
)

// limiter lets so many bytes pass in a second. A nil one lets all pass.
type limiter struct {
	rate float64 // bytes a second

	mu   sync.Mutex // guards the field below
	next time.Time  // when what has passed will have been paid for
}

// burst is how far ahead of its rate a limiter lets a sender get.
const burst = 100 * time.Millisecond

func newLimiter(rate int64) *limiter {
	if rate <= 0 {
		return nil
	}
	return &limiter{rate: float64(rate)}
}

// pass waits until n more bytes may pass.
func (l *limiter) pass(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	wait := l.take(n)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *limiter) take(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.next.Sub(now) - burst
}

// turnstile bounds what each peer may have open at a time, and all together.
type turnstile struct {
	mu   sync.Mutex // guards the fields below
	open map[string]int
	all  int
}

const (
	perPeer  = atOnce * streamsAlone
	allPeers = 256
)

func newTurnstile() *turnstile { return &turnstile{open: map[string]int{}} }

func (t *turnstile) enter(peer string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= allPeers || t.open[peer] >= perPeer {
		return false
	}
	t.all++
	t.open[peer]++
	return true
}

func (t *turnstile) leave(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.open[peer]--; t.open[peer] == 0 {
		delete(t.open, peer)
	}
}

// crowd bounds how many chunks of a file that is whole are sent at a time: who
// has to wait for one may get it meanwhile from who did not. One that takes long
// does not count, so that slow receivers do not keep others waiting.
type crowd struct {
	mu    sync.Mutex             // guards the field below
	began map[string][]time.Time // what is being sent, by file
}

const (
	perFile = 2 * streamsAlone
	long    = 5 * time.Second
)

func newCrowd() *crowd { return &crowd{began: map[string][]time.Time{}} }

// enter counts one more, unless there are too many. The returned function, to be
// called once, ends it.
func (c *crowd) enter(file string) (leave func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, young := time.Now(), 0
	for _, t := range c.began[file] {
		if now.Sub(t) < long {
			young++
		}
	}
	if young >= perFile {
		return nil, false
	}
	c.began[file] = append(c.began[file], now)
	return func() { c.leave(file, now) }, true
}

func (c *crowd) leave(file string, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.began[file]
	if i := slices.Index(all, began); i >= 0 {
		all = slices.Delete(all, i, i+1)
	}
	if len(all) == 0 {
		delete(c.began, file)
		return
	}
	c.began[file] = all
}
