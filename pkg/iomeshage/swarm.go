package iomeshage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxPeers      = 8 // sources at a time
	streamsEach   = 2 // so that one is busy while the other waits
	streamsAlone  = 4 // to a source that is the only one
	maxFailures   = 3
	maxRounds     = 5                      // how often a source may fail so often, with no chunk between
	pollFirst     = 100 * time.Millisecond // at least for the first, see pace
	pollEvery     = time.Second
	askTimeout    = 10 * time.Second
	hashTimeout   = 2 * time.Minute  // for reading hashBatch chunks from a busy disk
	sourceGrace   = 10 * time.Second // how long a transfer without a whole source waits for one
	secondMinimum = 2 * time.Second  // how long a chunk may take before another source is tried too
)

// swarm fetches all that is missing from all who have it.
func (t *transfer) swarm(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	t.mu.Lock()
	t.countLocked()
	t.mu.Unlock()
	t.employ(ctx, cancel, &wg)
	t.attend(ctx, cancel, &wg)
	cancel(nil)
	wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.plan.left == 0 {
		t.over = true
		return nil
	}
	return context.Cause(ctx)
}

// attend looks after the sources until all is here or ctx ends.
func (t *transfer) attend(ctx context.Context, cancel context.CancelCauseFunc, wg *sync.WaitGroup) {
	began := time.Now()
	tick := time.NewTimer(pace(0, len(t.s.others())))
	defer tick.Stop()
	var searched time.Time
	for {
		t.mu.Lock()
		left, wake := t.plan.left, t.wake
		t.mu.Unlock()
		if left == 0 || ctx.Err() != nil {
			return
		}
		select {
		case <-wake:
			continue
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all := t.s.others()
		hosts := t.hosts()
		if time.Since(searched) > time.Duration(len(all))*50*time.Millisecond {
			hosts, searched = all, time.Now()
		}
		t.poll(ctx, hosts)
		if err := t.authorized(ctx); err != nil {
			cancel(err)
			return
		}
		t.employ(ctx, cancel, wg)
		t.mu.Lock()
		t.pace = pace(time.Since(began), len(all))
		tick.Reset(t.pace)
		t.mu.Unlock()
	}
}

// pace is how long to wait between polls: less for a transfer that is young, and
// more where many may ask the same hosts.
func pace(age time.Duration, others int) time.Duration {
	return min(max(pollFirst+time.Duration(others)*2*time.Millisecond, age/8), pollEvery)
}

// hosts are those that take part.
func (t *transfer) hosts() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for h, p := range t.peers {
		if p.workers > 0 {
			out = append(out, h)
		}
	}
	return out
}

// poll asks hosts what they have by now.
func (t *transfer) poll(ctx context.Context, hosts []string) {
	ctx, cancel := context.WithTimeout(ctx, pollEvery*2)
	defer cancel()
	for _, r := range t.s.findAt(ctx, hosts, findRequest{Pattern: t.name, Exact: true}) {
		t.mu.Lock()
		t.heardLocked(r)
		t.mu.Unlock()
	}
	t.mu.Lock()
	t.countLocked()
	t.wakeLocked()
	t.mu.Unlock()
}

func (t *transfer) heardLocked(r findResult) {
	if r.err != nil || t.banned[r.host] {
		return
	}
	for _, f := range r.files {
		if f.Name != t.name || f.Kind != kindFile || f.Size != t.layout.size {
			continue
		}
		p := t.peers[r.host]
		if p == nil || p.gone {
			if p != nil && r.host == t.authority && p.info.Version != f.Version {
				// It is back with another file: it vouches only if it has what has come so far.
				t.authority = ""
				if !f.Partial {
					t.former = r.host
				}
			}
			p = &peer{host: r.host}
			t.peers[r.host] = p
		}
		if r.host != t.authority || p.info.Version == "" {
			p.info = f
		}
	}
}

func (t *transfer) countLocked() {
	var list []*found
	self, name := 0, t.s.network().Name()
	for _, p := range t.peers {
		if p.info.Partial && !p.gone {
			list = append(list, &p.info)
			if p.host < name {
				self++
			}
		}
	}
	t.plan.count(list, self)
}

// employ starts workers for peers that have none, as many as may be.
func (t *transfer) employ(ctx context.Context, cancel context.CancelCauseFunc, wg *sync.WaitGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	var free []*peer
	for _, p := range t.peers {
		switch {
		case p.workers > 0:
			n++
		case !p.gone:
			free = append(free, p)
		}
	}
	// The authority comes first, else chance decides, as the order of a map does.
	slices.SortStableFunc(free, func(a, b *peer) int { return rank(t, a) - rank(t, b) })
	streams := streamsEach
	if n+len(free) == 1 {
		streams = streamsAlone
	}
	for _, p := range free[:max(0, min(len(free), maxPeers-n))] {
		p.workers = streams
		for range streams {
			wg.Go(func() { t.work(ctx, cancel, p) })
		}
	}
}

func rank(t *transfer, p *peer) int {
	if p.host == t.authority {
		return 0
	}
	return 1
}

// authorized fetches what the authority knows by now, and finds another one if
// it is gone. An error is the end.
func (t *transfer) authorized(ctx context.Context) error {
	t.mu.Lock()
	host, cursor, a := t.authority, t.cursor, t.peers[t.authority]
	alone := len(t.peers) < 2
	t.mu.Unlock()
	if a == nil || a.gone {
		return t.elect(ctx)
	}
	if alone {
		return nil // its hashes come with its chunks
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r, err := ask[hashReply](ctx, t.s.network(), host, hashProtocol, hashRequest{Name: t.name, Version: a.info.Version, Since: cursor})
	if refused(err) == codeChanged {
		return t.wordy(host, err)
	}
	if err != nil {
		return nil //nolint:nilerr // its streams tell whether it is gone
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.authority != host {
		return nil
	}
	t.cursor += len(r.Chunks)
	if err := r.each(t.layout.count(), t.known.set); err != nil {
		t.banLocked(a, err)
	}
	t.wakeLocked()
	return nil
}

// elect makes another host that has the whole file the authority, if what has
// come so far is what it has.
func (t *transfer) elect(ctx context.Context) error {
	t.mu.Lock()
	var candidates []*peer
	for _, p := range t.peers {
		if !p.gone && !p.info.Partial {
			candidates = append(candidates, p)
		}
	}
	have := map[int]sum{}
	for i, st := range t.plan.state {
		if v, ok := t.known.get(i); ok && st == present {
			have[i] = v
		}
	}
	if t.lost.IsZero() {
		t.lost = time.Now()
	}
	lost, former := t.lost, t.former
	t.mu.Unlock()
	for _, p := range candidates {
		if t.agrees(ctx, p, have) {
			t.crown(p, have)
			return nil
		}
	}
	if time.Since(lost) < sourceGrace {
		return nil
	}
	if former != "" {
		return fmt.Errorf("%w: on %s", ErrChanged, former)
	}
	return fmt.Errorf("no host has all of it any more%s; %d of %d chunks are kept, get it again to go on", t.blames(), len(have), t.layout.count())
}

// agrees reports whether a peer has what has come so far.
func (t *transfer) agrees(ctx context.Context, p *peer, have map[int]sum) bool {
	same := true
	err := t.compare(ctx, p.host, p.info.Version, have, func(i int, v sum) {
		if old, ok := have[i]; ok && old != v {
			same = false
		}
	})
	if err == nil && same {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.banLocked(p, ErrConflict)
	} else {
		p.gone = true
		t.blame[p.host] = err
	}
	return false
}

// blames is why hosts are not used, for a message.
func (t *transfer) blames() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for _, host := range slices.Sorted(maps.Keys(t.blame)) {
		list = append(list, fmt.Sprintf("%s: %v", host, t.blame[host]))
	}
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// crown makes a peer the authority that has the chunks in have, unless others
// have come meanwhile: these are to be compared first.
func (t *transfer) crown(p *peer, have map[int]sum) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, st := range t.plan.state {
		if _, ok := have[i]; st == present && !ok {
			return
		}
	}
	t.s.opts.Log.Info("file distribution: another host vouches for the file", "file", t.name, "host", p.host, "before", t.authority)
	t.authority, t.former, t.cursor, t.lost = p.host, "", 0, time.Time{}
	t.reign++
	dense := t.known.isDense()
	t.known = newSums(t.layout.count())
	t.known.dense = dense
	for i, v := range have {
		t.known.set(i, v)
	}
	t.wakeLocked()
}

// banLocked uses a peer no more in this transfer, and says why.
func (t *transfer) banLocked(p *peer, err error) {
	if p.gone {
		return
	}
	p.gone = true
	t.banned[p.host], t.blame[p.host] = true, err
	t.s.opts.Log.Warn("file distribution: a host is not used as a source any more", "file", t.name, "host", p.host, "err", err)
	t.wakeLocked()
}
