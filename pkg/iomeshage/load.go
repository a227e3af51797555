package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"
)

// load is what one Get or Start brings: a file, or several, and the directories
// and links between them.
type load struct {
	s     *Service
	name  string
	label string    // as the user called it
	dir   bool      // it is a directory
	list  []*target // what is not here
	links []*target // of those
	begun []*transfer

	ctx      context.Context
	cancel   context.CancelCauseFunc
	finished chan struct{} // closed when it makes nothing any more

	mu     sync.Mutex  // guards the fields below
	coming []*transfer // begun and joined
	made   int         // directories and links
}

// begin makes the directories that are not here, and starts to bring the files.
// finish must be called unless it fails.
func (s *Service) begin(ctx context.Context, label, name string, list []*target, seen map[string]bool) (*load, error) {
	l := &load{s: s, name: name, label: label, finished: make(chan struct{}),
		dir: slices.ContainsFunc(list, func(tg *target) bool { return tg.name != name || tg.kind() == kindDir }) && !isPattern(name)}
	for _, tg := range list {
		if tg.here == nil {
			l.list = append(l.list, tg)
		}
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	s.mu.Lock()
	s.loads[l] = true
	s.mu.Unlock()
	err := s.mark(name, list)
	for i := 0; err == nil && i < len(l.list); i++ {
		err = l.add(l.list[i], seen)
	}
	if err != nil {
		l.cancel(err)
		_ = l.finish()
		return nil, fmt.Errorf("get %s: %w", label, err)
	}
	return l, nil
}

func (l *load) add(tg *target, seen map[string]bool) error {
	if err := l.ctx.Err(); err != nil {
		return context.Cause(l.ctx)
	}
	switch tg.kind() {
	case kindDir:
		return l.count(l.s.makeDir(tg.name, tg.mode))
	case kindLink:
		l.links = append(l.links, tg)
		return nil
	}
	t, isNew, err := l.s.bring(l.ctx, l.label, tg, seen)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.coming = append(l.coming, t)
	l.mu.Unlock()
	if isNew {
		l.begun = append(l.begun, t)
	}
	return nil
}

// count counts what was made.
func (l *load) count(err error) error {
	if err == nil {
		l.mu.Lock()
		l.made++
		l.mu.Unlock()
	}
	return err
}

// maxNamed is how many files an error names: a directory may have thousands.
const maxNamed = 10

// finish waits for the files, and makes the links once all are here.
func (l *load) finish() error {
	s := l.s
	defer func() {
		l.cancel(nil)
		s.mu.Lock()
		delete(s.loads, l)
		s.mu.Unlock()
		close(l.finished)
	}()
	var failed []error
	for _, t := range l.coming {
		if err := t.wait(l.ctx); err != nil {
			failed = append(failed, err)
		}
	}
	if more := len(failed) - maxNamed; more > 0 {
		failed = append(failed[:maxNamed], fmt.Errorf("and %d more files failed", more))
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	for _, tg := range l.links {
		if l.ctx.Err() != nil {
			return fmt.Errorf("get %s: %w", l.label, context.Cause(l.ctx))
		}
		if err := l.count(s.makeLink(tg.name, string(tg.authority.info.Target))); err != nil {
			return fmt.Errorf("get %s: %w", l.label, err)
		}
	}
	return s.whole(l.label, l.name)
}

// report lets the log say how a load ends that nobody waits for.
func (l *load) report() {
	log := l.s.opts.Log
	began := time.Now()
	err := l.finish()
	for _, t := range l.begun {
		switch {
		case !t.ended(): // given up here, and waited for by others
		case t.err == nil:
			log.Info("file distribution: file is here", "file", t.label, "bytes", t.layout.size, "took", t.took.Round(time.Millisecond))
		default:
			log.Error("file distribution: file did not come", "file", t.label, "err", t.err)
		}
	}
	switch {
	case !l.dir:
	case err == nil:
		log.Info("file distribution: directory is here", "directory", l.label, "came", len(l.list), "took", time.Since(began).Round(time.Millisecond))
	case !slices.ContainsFunc(l.coming, func(t *transfer) bool { return t.ended() && t.err != nil }): // else that is why
		log.Error("file distribution: directory did not come", "directory", l.label, "err", err)
	}
}

// touches reports whether a pattern, or a directory, means something that this
// brings.
func (l *load) touches(pattern string) bool {
	return covers(pattern, l.name) || slices.ContainsFunc(l.list, func(tg *target) bool { return covers(pattern, tg.name) })
}

// status is how far a directory is.
func (l *load) status() Status {
	l.mu.Lock()
	coming := slices.Clone(l.coming)
	st := Status{Name: l.label, Dir: path.Join(l.s.opts.Root, partialDir(l.name)), Done: l.made, Total: len(l.list)}
	l.mu.Unlock()
	for _, t := range coming {
		of := t.status()
		st.Bytes, st.Size = st.Bytes+of.Bytes, st.Size+of.Size
		st.Sources = append(st.Sources, of.Sources...)
		if t.ended() {
			st.Done++
		}
	}
	slices.Sort(st.Sources)
	st.Sources = slices.Compact(st.Sources)
	return st
}
