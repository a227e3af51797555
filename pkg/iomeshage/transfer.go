package iomeshage

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"sync"
	"time"
)

// transfer is one file on its way to this host.
type transfer struct {
	s       *Service
	name    string
	label   string // as the user called it
	version string // how others call what is there of it
	layout  layout
	mode    fs.FileMode
	mtime   time.Time
	seen    map[string]bool // images above this one
	part    *partial

	cancel   context.CancelCauseFunc
	finished chan struct{} // closed when all is over and the fields below are set
	err      error
	took     time.Duration

	mu        sync.Mutex // guards the fields below
	waiters   int
	queued    bool
	over      bool // no more chunks are wanted
	plan      *plan
	peers     map[string]*peer
	banned    map[string]bool
	blame     map[string]error // the last reason why a host is of no use
	rounds    map[string]int   // how often a host was lost with no chunk between
	authority string           // "" for none
	former    string           // the authority that came back with another file, if any
	reign     int              // counts the authorities: what one says of a chunk does not hold for the next
	known     *sums            // hashes as the authority gives them
	cursor    int              // how many of its hashes the authority has told of
	lost      time.Time
	jobs      map[int]*job
	second    *job // the one chunk that is fetched a second time
	wake      chan struct{}
	pace      time.Duration // between polls
}

// peer is a host that has some of the file, or all.
type peer struct {
	host     string
	info     found
	workers  int
	gone     bool
	indirect bool // only the mesh reaches it
	failures int
}

// job is a chunk on its way from one peer.
type job struct {
	chunk   int
	peer    *peer
	version string // of the file at the peer
	reign   int    // of the authority when it began
	began   time.Time
	second  bool
	lost    bool // a second source was faster
	cancel  context.CancelFunc
	ended   chan struct{}
}

func (s *Service) newTransfer(label string, tg *target, seen map[string]bool) *transfer {
	f := tg.authority.info
	t := &transfer{s: s, name: f.Name, label: label, version: "partial-" + rand.Text(), layout: layoutOf(f.Size),
		mode: tg.mode, mtime: time.Unix(0, f.MTime), seen: seen, finished: make(chan struct{}), queued: true,
		peers: map[string]*peer{}, banned: map[string]bool{}, blame: map[string]error{}, rounds: map[string]int{}, authority: tg.authority.host, jobs: map[int]*job{}, wake: make(chan struct{}), pace: pollFirst}
	n := t.layout.count()
	t.plan, t.known = newPlan(n), newSums(n)
	for _, h := range slices.Concat(tg.complete, tg.partial) {
		if h.info.Kind == kindFile && h.info.Size == f.Size {
			t.peers[h.host] = &peer{host: h.host, info: h.info}
		}
	}
	return t
}

// run brings the file, and then what it needs.
func (t *transfer) run(ctx context.Context) error {
	select {
	case t.s.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	t.queued = false
	t.mu.Unlock()
	err := t.bring(ctx)
	<-t.s.slots
	if err == nil {
		err = t.s.backing(ctx, t.name, t.seen)
	}
	return err
}

// bring makes the file, or leaves what can be resumed, or nothing.
func (t *transfer) bring(ctx context.Context) (err error) {
	in, err := t.s.into(path.Dir(t.name))
	if err != nil {
		return err
	}
	part, had, err := openPartial(in, t.name, t.layout.size)
	if err != nil {
		return err
	}
	defer part.close()
	t.part = part
	defer func() {
		if err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrChanged) || errors.Is(err, ErrConflict) || errors.Is(err, errDeleted) {
			err = cmp.Or(err, part.remove())
		}
	}()
	list, err := t.extents(ctx)
	if err != nil {
		return err
	}
	t.known.note(list, t.layout.size)
	if err := part.reserve(list); err != nil {
		return err
	}
	if err := t.resume(ctx, had); err != nil {
		return err
	}
	if err := t.swarm(ctx); err != nil {
		return err
	}
	return t.finish(ctx)
}

// extents asks where the file has data.
func (t *transfer) extents(ctx context.Context) (list []extent, err error) {
	err = t.consult(ctx, func(a *peer) error {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		r, err := ask[extentReply](ctx, t.s.network(), a.host, extentProtocol, extentRequest{t.name, a.info.Version})
		if err != nil {
			return err
		}
		list = r.Extents
		return checkExtents(list, t.layout.size)
	})
	return list, err
}

// consult asks the authority before the first chunk comes, and where it is of
// no use the next host that has the whole file, which becomes the authority.
func (t *transfer) consult(ctx context.Context, f func(*peer) error) error {
	for {
		t.mu.Lock()
		a := t.peers[t.authority]
		t.mu.Unlock()
		err := f(a)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			err = errors.New("it does not answer in time")
		}
		err = t.wordy(a.host, err)
		if errors.Is(err, ErrChanged) || !t.succeed(a, err) {
			return err
		}
	}
}

// succeed makes another host that has the whole file the authority, while
// nothing has come that it could differ from. It is false if there is none.
func (t *transfer) succeed(a *peer, why error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a.gone = true
	var next *peer
	for _, p := range t.peers {
		if !p.gone && !p.info.Partial && (next == nil || lot(t.name, p.host) < lot(t.name, next.host)) {
			next = p
		}
	}
	if next == nil {
		return false
	}
	t.s.opts.Log.Info("file distribution: another host vouches for the file", "file", t.name, "host", next.host, "before", a.host, "err", why)
	t.authority = next.host
	return true
}

// wordy names the host, and the file's fate where that is the reason.
func (t *transfer) wordy(host string, err error) error {
	if refused(err) == codeChanged {
		return fmt.Errorf("%w: on %s", ErrChanged, host)
	}
	return fmt.Errorf("%s: %w", host, err)
}

// resume takes the chunks that were there before, if they are what the record
// says and what the authority has.
func (t *transfer) resume(ctx context.Context, had map[int]sum) error {
	for i, v := range had {
		got, err := hashChunk(ctx, t.part.data, t.layout, i)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || got != v {
			delete(had, i)
		}
	}
	var theirs map[int]sum
	err := t.consult(ctx, func(a *peer) error {
		theirs = map[int]sum{}
		return t.compare(ctx, a.host, a.info.Version, had, func(i int, v sum) { theirs[i] = v })
	})
	if err != nil {
		return err
	}
	good := 0
	for i, v := range theirs {
		t.known.set(i, v)
		if had[i] == v {
			t.mu.Lock()
			t.plan.done(i)
			t.mu.Unlock()
			good++
		}
	}
	if good > 0 {
		t.s.opts.Log.Info("file distribution: goes on where it broke off", "file", t.name, "chunks", good, "of", t.layout.count())
	}
	return nil
}

// compare asks a host for the hashes of the chunks in list.
func (t *transfer) compare(ctx context.Context, host, version string, list map[int]sum, f func(int, sum)) error {
	n := t.layout.count()
	for from := 0; from < n; from += hashBatch {
		to := min(from+hashBatch, n)
		first, last := to, -1
		for i := from; i < to; i++ {
			if _, ok := list[i]; ok {
				first, last = min(first, i), i
			}
		}
		if last < 0 {
			continue
		}
		if err := t.s.fetchHashes(ctx, host, t.name, version, n, first, last-first+1, f); err != nil {
			return err
		}
	}
	return nil
}

// fetchHashes asks a host for hashes, which may take it reading the file.
func (s *Service) fetchHashes(ctx context.Context, host, name, version string, n, from, count int, f func(int, sum)) error {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	r, err := ask[hashReply](ctx, s.network(), host, hashProtocol, hashRequest{Name: name, Version: version, From: from, Count: count})
	if err != nil {
		return err
	}
	if len(r.Chunks) != count {
		return errGarbage
	}
	return r.each(n, f)
}

// finish makes the partial file the file, if it is still what the authority has.
func (t *transfer) finish(ctx context.Context) error {
	t.mu.Lock()
	a := t.peers[t.authority]
	t.mu.Unlock()
	if a != nil {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		_, err := ask[hashReply](ctx, t.s.network(), a.host, hashProtocol, hashRequest{Name: t.name, Version: a.info.Version, Since: t.layout.count()})
		if refused(err) == codeChanged {
			return t.wordy(a.host, err)
		}
	}
	if err := t.part.finish(t.mode, t.mtime); err != nil {
		return err
	}
	if st, err := t.s.root.Stat(t.name); err == nil && st.Size() == t.layout.size {
		t.s.hashes.put(identityOf(st), t.known)
	}
	return nil
}

// found is how this host tells others of what it has so far.
func (t *transfer) found() (found, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return found{Name: t.name, Size: t.layout.size, MTime: t.mtime.UnixNano(), Mode: uint32(t.mode.Perm()), Version: t.version,
		Partial: true, Done: t.plan.bitmap()}, !t.over && t.plan.left < len(t.plan.state)
}

// source opens what is there for another host.
func (t *transfer) source(i int) (*source, error) {
	t.mu.Lock()
	known, ok := t.known, i < len(t.plan.state) && t.plan.state[i] == present
	t.mu.Unlock()
	if !ok {
		return nil, refuse(codeAbsent, "not here yet")
	}
	f, err := t.s.root.Open(path.Join(partialDir(t.name), partialData))
	if err != nil {
		return nil, refuse(codeAbsent, "not here any more")
	}
	return &source{f: f, layout: t.layout, known: known, still: func() bool { return true }, close: func() { _ = f.Close() }}, nil
}

// wakeLocked lets all who wait look again.
func (t *transfer) wakeLocked() {
	close(t.wake)
	t.wake = make(chan struct{})
}

// Status is how far a file is, or a directory.
type Status struct {
	Name        string // as the user called it
	Dir         string // absolute, where the partial file lies, or the list of what is to come
	Done, Total int    // chunks; of a directory, files, directories and links
	Bytes, Size int64
	Queued      bool // it waits for its turn
	Sources     []string
}

func (t *transfer) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := Status{Name: t.label, Dir: path.Join(t.s.opts.Root, partialDir(t.name)), Total: len(t.plan.state),
		Done: len(t.plan.state) - t.plan.left, Size: t.layout.size, Queued: t.queued}
	st.Bytes = min(int64(st.Done)*t.layout.chunk, st.Size)
	for host, p := range t.peers {
		if p.workers > 0 {
			st.Sources = append(st.Sources, host)
		}
	}
	slices.Sort(st.Sources)
	return st
}

// Status lists what is coming, by name: each file, and each directory.
func (s *Service) Status() []Status {
	s.mu.Lock()
	list := slices.Collect(maps.Values(s.transfer))
	var loads []*load
	for l := range s.loads {
		if l.dir {
			loads = append(loads, l)
		}
	}
	s.mu.Unlock()
	out := make([]Status, 0, len(list))
	for _, t := range list {
		out = append(out, t.status())
	}
	for _, l := range loads {
		out = append(out, l.status())
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
