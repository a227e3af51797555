package iomeshage

import (
	"context"
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
