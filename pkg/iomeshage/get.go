package iomeshage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/pkg/meshage"
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

// target is one file, directory or link that was asked for, and who has it.
type target struct {
	name      string
	here      *found
	complete  []holder
	partial   []holder
	authority holder
	mode      fs.FileMode // that it gets here
}

// search asks all hosts what a pattern means. deaf names those of which there is
// no answer, odd what a host has in a directory and does not send.
func (s *Service) search(ctx context.Context, pattern string) (list []*target, deaf, odd string, err error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	byName := map[string]*target{}
	at := func(name string) *target {
		if byName[name] == nil {
			byName[name] = &target{name: name}
		}
		return byName[name]
	}
	here, _, err := s.find(pattern)
	if err != nil {
		return nil, "", "", err
	}
	for i := range here {
		at(here[i].Name).here = &here[i]
	}
	var silent, foreign, refusing []string
	for _, r := range s.findAt(ctx, s.others(), findRequest{Pattern: pattern, Exact: !isPattern(pattern)}) {
		switch {
		case errors.Is(r.err, meshage.ErrProtocol):
			foreign = append(foreign, r.host)
			s.opts.Log.Warn("file distribution: a host runs another version of minimega, with which files are not exchanged", "host", r.host, "err", r.err)
		case refused(r.err) != "":
			refusing = append(refusing, fmt.Sprintf("%s: %.300v", r.host, r.err))
		case r.err != nil:
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
		return nil, "", "", context.Cause(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if t := byName[name]; t.here != nil || len(t.complete) > 0 {
			list = append(list, t)
		}
	}
	return list, unheard(silent, foreign, refusing), odd, nil
}

// unheard says of which hosts there is no answer, and why. Several may have one
// name.
func unheard(silent, foreign, out []string) string {
	if len(silent) > 0 {
		out = append(out, "no answer from "+strings.Join(slices.Compact(silent), ", "))
	}
	if len(foreign) > 0 {
		out = append(out, strings.Join(slices.Compact(foreign), ", ")+" runs another version of minimega, with which files are not exchanged")
	}
	return strings.Join(out, "; ")
}

// kind is what is here, or else what is meant to come.
func (tg *target) kind() string {
	if tg.here != nil {
		return tg.here.Kind
	}
	return tg.authority.info.Kind
}

// Get brings a file, a directory with all in it, or all that a pattern means to
// this host, with the files that they need, and returns when they are here. What
// is here stays as it is. On a host that is alone it succeeds.
//
// Whoever asks for a file that is coming already waits for it too. If ctx ends
// and nobody else waits, what has come is kept for the next time.
func (s *Service) Get(ctx context.Context, name string) error {
	return s.get(ctx, name, map[string]bool{})
}

func (s *Service) get(ctx context.Context, label string, seen map[string]bool) error {
	name, err := s.meant(label)
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
	list, note, err := s.choose(ctx, label, name, false)
	if err != nil {
		return err
	}
	if note != "" { // it may do without
		s.opts.Log.Warn("file distribution: not all of a directory is fetched", "directory", label, "why", note)
	}
	l, err := s.begin(ctx, label, name, list, seen)
	if err != nil {
		return err
	}
	for _, tg := range list {
		if tg.here != nil && tg.kind() == kindFile {
			err = errors.Join(err, s.backing(ctx, tg.name, seen))
		}
	}
	return errors.Join(err, l.finish())
}

// meant is the name of what a user asks for: that which a link here leads to,
// if that is not here.
func (s *Service) meant(label string) (string, error) {
	name, err := s.clean(label)
	if err != nil {
		return "", err
	}
	if _, err := s.root.Stat(name); errors.Is(err, fs.ErrNotExist) {
		name = s.follow(name)
	}
	return name, nil
}

// Start begins to bring what Get would bring, and returns when it has begun;
// Status shows how far it is, and the log how it ends. It fails with
// ErrInFlight if all of it is on its way already, and with ErrConflict if
// another host has other content. note is what the caller should be told.
func (s *Service) Start(ctx context.Context, label string) (note string, err error) {
	name, err := s.meant(label)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", label, err)
	}
	if s.running(name) != nil || s.loading(name) {
		return "", ErrInFlight
	}
	if len(s.others()) == 0 {
		if !s.anything(name) {
			return label + " is not here, and there is no other host to get it from", nil
		}
		return "", s.whole(label, name)
	}
	list, note, err := s.choose(ctx, label, name, true)
	if err != nil {
		return "", err
	}
	l, err := s.begin(s.ctx, label, name, list, map[string]bool{})
	switch {
	case err != nil:
		return "", err
	case len(l.coming) == 0:
		return note, l.finish()
	}
	inFlight := len(l.begun) == 0 && len(l.coming) == len(l.list)
	if !s.enter() {
		l.cancel(ErrClosed)
		return "", l.finish()
	}
	go func() {
		defer s.leave()
		l.report()
	}()
	if inFlight {
		return "", ErrInFlight
	}
	return note, nil
}

// anything reports whether a name, a directory or a pattern means something here.
func (s *Service) anything(name string) (is bool) {
	_ = s.visit(name, func(string, fs.FileInfo) error { is = true; return fs.SkipAll }, nil)
	return is
}

// loading reports whether a directory is on its way.
func (s *Service) loading(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.loads {
		if l.name == name {
			return true
		}
	}
	return false
}

// choose finds out what there is and, for each that is not here, the host whose
// content is meant. strict makes it an error if what is here differs. note says
// what will not come.
func (s *Service) choose(ctx context.Context, label, name string, strict bool) (list []*target, note string, err error) {
	list, deaf, odd, err := s.search(ctx, name)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", label, err)
	}
	if len(list) == 0 && deaf != "" {
		return nil, "", fmt.Errorf("get %s: %w (%s)", label, ErrNotFound, deaf)
	}
	if len(list) == 0 {
		return nil, "", fmt.Errorf("get %s: %w", label, ErrNotFound)
	}
	for _, tg := range list {
		if err := s.decide(ctx, tg, strict); err != nil {
			return nil, "", fmt.Errorf("get %s: %w", tg.name, err)
		}
	}
	if err := s.nested(list); err != nil {
		return nil, "", err
	}
	return list, s.modes(name, list, odd), nil
}

// modes sets what modes the files and directories get that are to come. note
// adds to what does not come.
func (s *Service) modes(name string, list []*target, odd string) (note string) {
	if odd != "" {
		note = odd + ", which is no file, directory or link and does not come with it"
	}
	private := s.private()
	for _, tg := range list {
		f := &tg.authority.info
		// A single file is no part of a file system, in which alone these bits are of use.
		tg.mode = fileMode(f.Mode, private && tg.name != name && !isPattern(name))
		if tg.here == nil && tg.name != name && !private && f.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 && note == "" {
			note = fmt.Sprintf("%s comes without the set-user-ID or set-group-ID bit that it has on %s, because others than root reach the files directory", tg.name, tg.authority.host)
		}
	}
	return note
}

// bring starts a transfer, or joins the one that runs.
func (s *Service) bring(ctx context.Context, label string, tg *target, seen map[string]bool) (t *transfer, isNew bool, err error) {
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
	began := time.Now()
	s.wg.Go(func() {
		defer cancel(nil)
		err := t.run(ctx)
		s.mu.Lock()
		delete(s.transfer, tg.name)
		s.mu.Unlock()
		if err != nil {
			t.err = fmt.Errorf("get %s: %w", t.label, err)
		}
		t.took = time.Since(began)
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

// ended reports whether the transfer is over, and its outcome can be read.
func (t *transfer) ended() bool {
	select {
	case <-t.finished:
		return true
	default:
		return false
	}
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
