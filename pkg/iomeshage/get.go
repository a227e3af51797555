package iomeshage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// findTimeout is how long a host may take to say what it has.
const findTimeout = 5 * time.Second

var errDeleted = errors.New("deleted meanwhile")

// findResult is what one host has.
type findResult struct {
	host  string
	files []found
	odd   string
	err   error
}

// findAt asks hosts what they have.
func (s *Service) findAt(ctx context.Context, hosts []string, q findRequest) []findResult {
	if len(hosts) == 0 {
		return nil
	}
	var out []findResult
	for r := range askAll[findReply](ctx, s.network(), hosts, findProtocol, q) {
		f := findResult{host: r.host, files: r.value.Files, odd: r.value.Odd, err: r.err}
		if len(f.files) > maxListed+1 {
			f.files, f.err = nil, errGarbage
		}
		for i := range f.files {
			f.err = cmp.Or(f.err, f.files[i].check())
		}
		if f.err != nil {
			f.files = nil
		}
		out = append(out, f)
	}
	return out
}

// holder is a host that has a file.
type holder struct {
	host string
	info found
}

// target is one file that was asked for, and who has it.
type target struct {
	name      string
	here      *found
	complete  []holder
	partial   []holder
	authority holder
}

// search asks all hosts which files a pattern means. silent are those that did
// not answer, odd what a host has in a directory and does not send.
func (s *Service) search(ctx context.Context, pattern string) (list []*target, silent []string, odd string, err error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	byName := map[string]*target{}
	at := func(name string) *target {
		if byName[name] == nil {
			byName[name] = &target{name: name}
		}
		return byName[name]
	}
	here, err := s.find(pattern)
	if err != nil {
		return nil, nil, "", err
	}
	for i := range here {
		at(here[i].Name).here = &here[i]
	}
	for _, r := range s.findAt(ctx, s.others(), findRequest{Pattern: pattern, Exact: !isPattern(pattern)}) {
		if r.err != nil {
			silent = append(silent, r.host)
			s.opts.Log.Debug("file distribution: no answer", "host", r.host, "err", r.err)
		}
		if r.err == nil && checkName(r.odd) == nil && covers(pattern, r.odd) {
			odd = fmt.Sprintf("%s has %q", r.host, r.odd)
		}
		for _, f := range r.files {
			if !covers(pattern, f.Name) {
				continue
			}
			if t := at(f.Name); f.Partial {
				t.partial = append(t.partial, holder{r.host, f})
			} else {
				t.complete = append(t.complete, holder{r.host, f})
			}
		}
	}
	if context.Cause(ctx) != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, nil, "", context.Cause(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if t := byName[name]; t.here != nil || len(t.complete) > 0 {
			list = append(list, t)
		}
	}
	return list, silent, odd, nil
}

// Get brings a file, all files of a directory, or all that a pattern means to
// this host, with the files that they need, and returns when they are here. A
// file that is here stays as it is. On a host that is alone it succeeds.
//
// Whoever asks for a file that is coming already waits for it too. If ctx ends
// and nobody else waits, what has come is kept for the next time.
func (s *Service) Get(ctx context.Context, name string) error {
	return s.get(ctx, name, map[string]bool{})
}

func (s *Service) get(ctx context.Context, label string, seen map[string]bool) error {
	name, err := s.clean(label)
	if err != nil {
		return fmt.Errorf("get %s: %w", label, err)
	}
	t, err := s.join(ctx, name)
	if err != nil {
		return fmt.Errorf("get %s: %w", label, err)
	}
	if t != nil {
		return t.wait(ctx)
	}
	if len(s.others()) == 0 {
		return s.whole(label, name)
	}
	list, odd, err := s.choose(ctx, label, name, false)
	if err != nil {
		return err
	}
	if odd != "" { // it may do without
		s.opts.Log.Warn("file distribution: not all of a directory is fetched", "directory", label, "why", odd)
	}
	if err := s.mark(name, list); err != nil {
		return fmt.Errorf("get %s: %w", label, err)
	}
	var coming []*transfer
	for _, tg := range list {
		if tg.here != nil {
			err = errors.Join(err, s.backing(ctx, tg.name, seen))
			continue
		}
		t, _, e := s.begin(ctx, label, tg, seen)
		err = errors.Join(err, e)
		if t != nil {
			coming = append(coming, t)
		}
	}
	for _, t := range coming {
		err = errors.Join(err, t.wait(ctx))
	}
	if err != nil {
		return err
	}
	return s.whole(label, name)
}

// Start begins to bring what Get would bring, and returns when it has begun;
// Status shows how far it is, and the log how it ends. It fails with
// ErrInFlight if all of it is on its way already, and with ErrConflict if
// another host has other content. note is what the caller should be told.
func (s *Service) Start(ctx context.Context, label string) (note string, err error) {
	name, err := s.clean(label)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", label, err)
	}
	if s.running(name) != nil {
		return "", ErrInFlight
	}
	if len(s.others()) == 0 {
		if list, err := s.expand(name); err == nil && len(list) == 0 {
			return label + " is not here, and there is no other host to get it from", nil
		}
		return "", s.whole(label, name)
	}
	list, note, err := s.choose(ctx, label, name, true)
	if err != nil {
		return "", err
	}
	if err := s.mark(name, list); err != nil {
		return "", fmt.Errorf("get %s: %w", label, err)
	}
	wanted, begun := 0, 0
	for _, tg := range list {
		if tg.here != nil {
			continue
		}
		wanted++
		t, isNew, err := s.begin(ctx, label, tg, map[string]bool{})
		if err != nil {
			return "", err
		}
		if isNew {
			begun++
			s.report(t)
		}
	}
	switch {
	case wanted == 0:
		return note, s.whole(label, name)
	case begun == 0:
		return "", ErrInFlight
	}
	return note, nil
}

// report lets the log say how a transfer ends that nobody waits for.
func (s *Service) report(t *transfer) {
	if !s.enter() {
		return
	}
	go func() {
		defer s.leave()
		began := time.Now()
		<-t.finished
		if t.err != nil {
			s.opts.Log.Error("file distribution: file did not come", "file", t.label, "err", t.err)
			return
		}
		s.lacking(path.Dir(t.name)) // it may have been the last of a directory
		s.opts.Log.Info("file distribution: file is here", "file", t.label, "bytes", t.layout.size, "took", time.Since(began).Round(time.Millisecond))
	}()
}

// choose finds the files and, for each that is not here, the host whose
// content is meant. strict makes it an error if what is here differs. odd says
// what will not come.
func (s *Service) choose(ctx context.Context, label, name string, strict bool) (list []*target, odd string, err error) {
	list, silent, odd, err := s.search(ctx, name)
	if odd != "" {
		odd += ", which is neither a file nor a directory and does not come with it: pack the directory as an archive (tar), and get that"
	}
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", label, err)
	}
	if len(list) == 0 && len(silent) > 0 {
		return nil, "", fmt.Errorf("get %s: %w (no answer from %s)", label, ErrNotFound, strings.Join(slices.Compact(silent), ", ")) // several hosts may have one name
	}
	if len(list) == 0 {
		return nil, "", fmt.Errorf("get %s: %w", label, ErrNotFound)
	}
	for _, tg := range list {
		if err := s.decide(ctx, tg, strict); err != nil {
			return nil, "", fmt.Errorf("get %s: %w", tg.name, err)
		}
	}
	return list, odd, nil
}

// begin starts a transfer, or joins the one that runs.
func (s *Service) begin(ctx context.Context, label string, tg *target, seen map[string]bool) (t *transfer, isNew bool, err error) {
	if label != tg.name && isPattern(label) || !strings.HasSuffix(strings.TrimRight(label, "/"), tg.name) {
		label = tg.name // one of several
	}
	for {
		if t, err = s.join(ctx, tg.name); t != nil || err != nil {
			return t, false, err
		}
		if t, err = s.launch(label, tg, seen); t != nil || err != nil {
			return t, true, err
		}
	}
}

// launch starts a transfer, unless there is one of the file: it returns nil.
func (s *Service) launch(label string, tg *target, seen map[string]bool) (*transfer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.transfer[tg.name] != nil {
		return nil, nil
	}
	t := s.newTransfer(label, tg, seen)
	t.waiters = 1
	ctx, cancel := context.WithCancelCause(s.ctx)
	t.cancel = cancel
	s.transfer[tg.name] = t
	s.wg.Go(func() {
		defer cancel(nil)
		err := t.run(ctx)
		s.mu.Lock()
		delete(s.transfer, tg.name)
		s.mu.Unlock()
		if err != nil {
			t.err = fmt.Errorf("get %s: %w", t.label, err)
		}
		close(t.finished)
	})
	return t, nil
}

// join returns the transfer of a name to wait for, nil for none. One that
// everybody has left is about to end: join waits for that.
func (s *Service) join(ctx context.Context, name string) (*transfer, error) {
	for {
		t := s.running(name)
		if t == nil || t.addWaiter() {
			return t, nil
		}
		select {
		case <-t.finished:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if t.err == nil {
			return t, nil // it came all the same
		}
	}
}

// addWaiter is false if the last who waited has left.
func (t *transfer) addWaiter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiters == 0 {
		return false
	}
	t.waiters++
	return true
}

// wait ends with the transfer, or with ctx; the last who leaves ends it.
func (t *transfer) wait(ctx context.Context) error {
	select {
	case <-t.finished:
		return t.err
	case <-ctx.Done():
	}
	t.mu.Lock()
	t.waiters--
	last := t.waiters == 0
	t.mu.Unlock()
	if !last {
		return context.Cause(ctx)
	}
	t.cancel(context.Cause(ctx))
	<-t.finished
	return t.err
}
