package record

import (
	"context"
	"errors"
	"path/filepath"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

func noPlayback(name string) error {
	return errs.New(errs.NotFound, "kb playback not found for %s", name)
}

// playing returns the playback to a VM that is under way.
func (m *Manager) playing(namespace, name string) (*job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[key{TypePlayback, namespace, name}]
	if j == nil || !j.started || !j.running() {
		return nil, noPlayback(name)
	}
	return j, nil
}

// Pause holds a playback before its next event; keys that are down stay down.
// A wait for a picture goes on.
func (m *Manager) Pause(namespace, name string) error {
	j, err := m.playing(namespace, name)
	if err != nil {
		return err
	}
	return j.player.clock.pause()
}

// Continue lets a playback go on that Pause holds.
func (m *Manager) Continue(namespace, name string) error {
	j, err := m.playing(namespace, name)
	if err != nil {
		return err
	}
	return j.player.clock.resume()
}

// Step plays the next event at once, paused or not, and returns when it has
// been sent. A WaitForIt that is waiting is passed over.
func (m *Manager) Step(ctx context.Context, namespace, name string) error {
	j, err := m.playing(namespace, name)
	if err != nil {
		return err
	}
	moved, err := j.player.clock.step()
	if err != nil {
		return err
	}
	select {
	case <-moved:
	case <-j.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// NextStep returns the event that a playback plays next, as a line of a kb file.
func (m *Manager) NextStep(namespace, name string) (string, error) {
	j, err := m.playing(namespace, name)
	if err != nil {
		return "", err
	}
	return j.player.clock.show(), nil
}

// Inject makes one event, written as in a kb file but without its time, part
// of the playback to a VM. Keys and pointer are sent at once, paused or not;
// anything else comes before the playback's next event. Relative paths count
// from dir. Errors: errs.Invalid for what is no event, errs.NotFound.
func (m *Manager) Inject(ctx context.Context, namespace, name, event, dir string) error {
	e, err := vnc.ParseKBEvent(event)
	if err != nil {
		return errs.New(errs.Invalid, "cannot inject: %w", err)
	}
	j, err := m.playing(namespace, name)
	if err != nil {
		return err
	}
	switch e := e.(type) {
	case vnc.KeyEvent:
		err = j.player.typist.key(e)
	case vnc.PointerEvent:
		err = j.player.typist.pointer(e)
	default:
		return j.player.inject(ctx, e, dir)
	}
	if errors.Is(err, errTypistGone) {
		return noPlayback(name)
	}
	if err != nil {
		return errs.InVM(errs.AtStep(err, "inject"), name)
	}
	j.items.Add(1)
	return nil
}

// inject checks an event with all that it names, and puts it before the next one.
func (p *player) inject(ctx context.Context, e vnc.KBEvent, dir string) error {
	line, path := vnc.KBLine{Event: e}, filepath.Join(dir, "inject")
	s := &script{open: []*scriptFile{{lines: []vnc.KBLine{line}, path: path}}}
	length, _, err := s.survey(ctx, path)
	if err != nil {
		return errs.InVM(errs.AtStep(err, "inject"), p.target.Name)
	}
	if !p.clock.insert(inserted{line, path}, length) {
		return noPlayback(p.target.Name)
	}
	return nil
}
