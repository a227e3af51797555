package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"minimega/pkg/meshage"
)

// work fetches chunks from one peer until there are none, or it is of no use.
func (t *transfer) work(ctx context.Context, fail context.CancelCauseFunc, p *peer) {
	var stream meshage.Stream
	defer func() {
		if stream != nil {
			_ = stream.Close()
		}
		t.mu.Lock()
		p.workers--
		t.mu.Unlock()
	}()
	buf := make([]byte, blockSize)
	for {
		jctx, j := t.next(ctx, p)
		if j == nil {
			return
		}
		err := t.fetch(jctx, &stream, j, buf)
		j.cancel()
		if err != nil && refused(err) == "" && stream != nil {
			_ = stream.Reset()
			stream = nil
		}
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		pause, fatal := t.settle(p, j, err)
		if fatal != nil {
			fail(fatal)
			return
		}
		if pause > 0 && !sleep(ctx, pause) {
			return
		}
	}
}

// sleep waits, and reports whether ctx still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// next waits for a chunk that p can send. It returns nil when there is nothing
// more to do for p.
func (t *transfer) next(ctx context.Context, p *peer) (context.Context, *job) {
	for {
		t.mu.Lock()
		if p.gone || t.plan.left == 0 || ctx.Err() != nil {
			t.mu.Unlock()
			return nil, nil
		}
		if j := t.jobLocked(p); j != nil {
			ctx, j.cancel = context.WithCancel(ctx)
			t.mu.Unlock()
			return ctx, j
		}
		wake := t.wake
		t.mu.Unlock()
		timer := time.NewTimer(pollEvery / 2) // chunks become slow without anybody saying so
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (t *transfer) jobLocked(p *peer) *job {
	i := t.plan.pick(func(i int) bool {
		if p.host == t.authority {
			return true
		}
		_, known := t.known.get(i)
		return p.info.has(i) && (known || !p.info.Partial && t.authorityLocked() != nil)
	})
	if i >= 0 {
		j := &job{chunk: i, peer: p, version: p.info.Version, reign: t.reign, began: time.Now(), ended: make(chan struct{})}
		t.jobs[i] = j
		return j
	}
	return t.secondLocked(p)
}

func (t *transfer) authorityLocked() *peer {
	if a := t.peers[t.authority]; a != nil && !a.gone {
		return a
	}
	return nil
}

// secondLocked takes the chunk that has been on its way for longest, when
// nothing is left but chunks on their way: their sources may be slow.
func (t *transfer) secondLocked(p *peer) *job {
	if t.second != nil || !t.plan.idle() {
		return nil
	}
	var slow *job
	for _, j := range t.jobs {
		_, known := t.known.get(j.chunk)
		if j.peer != p && p.info.has(j.chunk) && (known || p.host == t.authority) && (slow == nil || j.began.Before(slow.began)) {
			slow = j
		}
	}
	if slow == nil || time.Since(slow.began) < secondMinimum {
		return nil
	}
	t.second = &job{chunk: slow.chunk, peer: p, version: p.info.Version, reign: t.reign, began: time.Now(), second: true, ended: make(chan struct{})}
	return t.second
}

// settle draws the consequences of how a job ended: fatal ends the transfer,
// pause is how long to leave the peer alone.
func (t *transfer) settle(p *peer, j *job, err error) (pause time.Duration, fatal error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.wakeLocked()
	if j.second {
		t.second = nil
	} else {
		delete(t.jobs, j.chunk)
		close(j.ended)
	}
	if j.lost {
		return 0, nil
	}
	if j.reign != t.reign && (err == nil || errors.Is(err, ErrConflict)) {
		t.plan.giveBack(j.chunk)
		return 0, nil
	}
	if err == nil {
		p.failures = 0
		if delete(t.rounds, p.host); !t.banned[p.host] {
			delete(t.blame, p.host)
		}
		t.plan.done(j.chunk)
		return 0, nil
	}
	if !j.second {
		t.plan.giveBack(j.chunk)
	}
	return t.blameLocked(p, j, err)
}

func (t *transfer) blameLocked(p *peer, j *job, err error) (pause time.Duration, fatal error) {
	var local *localError
	switch code := refused(err); {
	case errors.As(err, &local):
		return 0, local.err
	case code == codeChanged && p == t.peers[t.authority]:
		return 0, t.wordy(p.host, err)
	case code == codeChanged:
		p.gone = true // if it has come to be whole meanwhile, it is found again
	case code == codeAbsent && p.info.Partial && j.chunk/8 < len(p.info.Done):
		p.info.Done = slices.Clone(p.info.Done)
		p.info.Done[j.chunk/8] &^= 1 << (j.chunk % 8)
	case code == codeBusy:
		return t.pace / 2, nil
	case errors.Is(err, errLie), errors.Is(err, errGarbage), errors.Is(err, ErrConflict):
		t.banLocked(p, fmt.Errorf("chunk %d: %w", j.chunk, err))
	case errors.Is(err, meshage.ErrLeft), errors.Is(err, meshage.ErrUnknown):
		p.gone = true
	default:
		return t.strikeLocked(p, fmt.Errorf("chunk %d: %w", j.chunk, err)), nil
	}
	return 0, nil
}

func (t *transfer) strikeLocked(p *peer, err error) time.Duration {
	if p.failures++; p.failures < maxFailures*streamsEach {
		return time.Duration(p.failures) * 50 * time.Millisecond
	}
	// It is found again by the next poll, so that what it fails at is counted here.
	if t.rounds[p.host]++; t.rounds[p.host] >= maxRounds {
		t.banLocked(p, err)
		return 0
	}
	t.s.opts.Log.Info("file distribution: a source is lost", "file", t.name, "host", p.host, "err", err)
	p.gone = true
	t.blame[p.host] = err
	return 0
}
