package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// RecordKB records to path the keys and pointer movements that go through
// t.Proxy. ctx bounds the start alone. An older file of that name is replaced
// once the recording starts. Errors: errs.State (already running, no screen,
// file in use) or what is wrong with the file; nothing is left then.
func (m *Manager) RecordKB(ctx context.Context, t Target, path string) error {
	return m.recordKB(ctx, t, path, nil)
}

func (m *Manager) recordKB(ctx context.Context, t Target, path string, old *resumption) error {
	return m.record(t, TypeKB, path, old, func(j *job, out *output) (func(context.Context) error, error) {
		start := time.Now()
		if old != nil {
			start = old.last
		}
		if err := errors.Join(ctx.Err(), old.begin(out)); err != nil {
			return nil, err
		}
		return newKBRecorder(t.Proxy, j, out, start).run, nil
	})
}

// RecordFB records to path what the screen of t shows, at most ten times a
// second. For ctx, older files and errors see RecordKB; errs.Unreachable if
// the screen does not answer.
func (m *Manager) RecordFB(ctx context.Context, t Target, path string) error {
	return m.recordFB(ctx, t, path, nil)
}

func (m *Manager) recordFB(ctx context.Context, t Target, path string, old *resumption) error {
	return m.record(t, TypeFB, path, old, func(j *job, out *output) (func(context.Context) error, error) {
		r, err := newFBRecorder(ctx, t, j, out, old)
		if err != nil {
			return nil, err
		}
		r.log = m.log
		return r.run, nil
	})
}

// record starts a recording; prepare does what can fail and returns the rest.
// One that goes on where an earlier process left it has old.
func (m *Manager) record(t Target, kind, path string, old *resumption, prepare func(*job, *output) (func(context.Context) error, error)) error {
	short := kind[len("record "):]
	if t.Proxy == nil {
		return noScreen(t, kind)
	}
	j := newJob(kind, t, path, true)
	if err := m.begin(j, errs.New(errs.State, "%s recording for %s already running", short, t.Name)); err != nil {
		return err
	}
	out, err := openOutput(j)
	if err != nil {
		m.abandon(j)
		return err
	}
	run, err := prepare(j, out)
	if err == nil {
		err = m.note(j, old)
	}
	if err != nil {
		out.abandon()
		m.abandon(j)
		return errs.InVM(errs.AtStep(err, kind), t.Name)
	}
	m.launch(j, run)
	return nil
}

func noScreen(t Target, step string) error {
	err := errs.New(errs.State, "it has no screen at the moment")
	err = errs.WithRemedy(err, "launch it, or choose a machine of type kvm")
	return errs.InVM(errs.AtStep(err, step), t.Name)
}

// kbRecorder writes what a proxy sees.
type kbRecorder struct {
	w       *vnc.KBWriter
	job     *job
	out     *output
	dropped uint64
	cancel  func()     // of the subscription
	failed  chan error // the first error of writing
	gone    <-chan struct{}
}

func newKBRecorder(p *vnc.Proxy, j *job, out *output, start time.Time) *kbRecorder {
	k := &kbRecorder{w: vnc.NewKBWriter(out, start), job: j, out: out, failed: make(chan error, 1), gone: p.Done()}
	k.cancel = p.Subscribe(func(e vnc.Event) {
		if err := k.event(e); err != nil {
			select {
			case k.failed <- err:
			default:
			}
		}
	})
	return k
}

// run returns when ctx ends, the machine is gone, or the file cannot be written.
func (k *kbRecorder) run(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case <-k.gone:
	case err = <-k.failed:
	}
	k.cancel()
	select { // what was queued may have failed, too
	case late := <-k.failed:
		err = errors.Join(err, late)
	default:
	}
	return errors.Join(err, k.out.Close())
}

func (k *kbRecorder) event(e vnc.Event) error {
	if lost := e.Dropped - k.dropped; lost > 0 {
		k.dropped = e.Dropped
		if err := k.w.Note(fmt.Sprintf("%d events were too fast to be recorded here", lost)); err != nil {
			return err
		}
	}
	switch in := e.Input.(type) {
	case vnc.KeyEvent:
		k.job.items.Add(1)
		return k.w.Write(e.Time, in)
	case vnc.PointerEvent:
		k.job.items.Add(1)
		return k.w.Write(e.Time, in)
	case vnc.Opaque:
		return k.w.Note(fmt.Sprintf("client %d is not recorded from here on: %s", e.Client, in.Reason))
	}
	return nil
}
