package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// Play plays the kb file at path to t, and with it the files that it loads.
// The whole file is checked before the first key; ctx bounds that and the
// start. When it ends or is stopped, keys and buttons that it still holds down
// are released.
func (m *Manager) Play(ctx context.Context, t Target, path string) error {
	if t.Proxy == nil {
		return noScreen(t, "play")
	}
	j := newJob(TypePlayback, t, path, false)
	p := &player{target: t, job: j, clock: newClock(), log: m.log.With("vm", t.Name, "file", path)}
	j.player = p
	if err := m.begin(j, errs.New(errs.State, "kb playback %s already playing", t.Name)); err != nil {
		return err
	}
	if err := p.prepare(ctx, path); err != nil {
		m.abandon(j)
		return errs.InVM(errs.AtStep(err, "play"), t.Name)
	}
	m.launch(j, p.run)
	return nil
}

// player plays one kb file.
type player struct {
	target  Target
	job     *job
	log     *slog.Logger
	clock   *clock
	script  *script
	typist  *typist
	badSeen int
}

func (p *player) prepare(ctx context.Context, path string) error {
	total, depth, err := survey(ctx, path)
	if err != nil {
		return err
	}
	if depth > warnDepth {
		p.log.Warn("kb files load each other deeply", "depth", depth)
	}
	p.clock.begin(total)
	if p.script, err = openScript(path); err != nil {
		return err
	}
	p.script.onBad = p.bad
	if p.typist, err = newTypist(ctx, p.target); err != nil {
		p.script.close()
	}
	return err
}

// maxBad is how many lines that make no sense are logged one by one.
const maxBad = 20

func (p *player) bad(path string, err error) {
	switch p.badSeen++; {
	case p.badSeen < maxBad:
		p.log.Warn("kb event is left out", "in", path, "err", err)
	case p.badSeen == maxBad:
		p.log.Warn("more kb events are left out, not logged one by one", "in", path)
	}
}

func (p *player) run(ctx context.Context) error {
	defer p.script.close()
	err := p.play(ctx)
	if ctx.Err() != nil {
		err = nil // stopped, not failed
	}
	return errors.Join(err, p.typist.close(context.WithoutCancel(ctx)))
}

func (p *player) play(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		line, err := p.script.next()
		if errors.Is(err, io.EOF) {
			queue := p.clock.takeLast()
			if len(queue) == 0 {
				return nil
			}
			p.script.putBack()
			p.insert(queue)
			continue
		}
		if err != nil {
			return err
		}
		p.clock.load(line)
		due, err := p.due(ctx, timer)
		if err != nil {
			return err
		}
		if !due {
			continue
		}
		if err := p.do(ctx, line.Event); err != nil {
			return fmt.Errorf("line %d: %w", line.Line, err)
		}
		p.job.items.Add(1)
	}
}

// due returns when the next event is due, or false when it has been put back
// because others come before it.
func (p *player) due(ctx context.Context, timer *time.Timer) (bool, error) {
	for ctx.Err() == nil {
		v, d := p.clock.look()
		switch {
		case v == play:
			return true, nil
		case v == putOff && p.script.between():
			p.insert(p.clock.takeQueue())
			continue
		case v == putOff:
			p.script.putBack(p.clock.unload())
			p.insert(p.clock.takeQueue())
			return false, nil
		}
		var ring <-chan time.Time
		if d >= 0 {
			timer.Reset(d)
			ring = timer.C
		}
		select {
		case <-ctx.Done():
		case <-p.clock.wake:
		case <-ring:
		}
	}
	return false, ctx.Err()
}

func (p *player) insert(queue []inserted) {
	for _, i := range queue {
		p.script.insert(i.line, i.path)
	}
}

func (p *player) do(ctx context.Context, e vnc.KBEvent) error {
	switch e := e.(type) {
	case vnc.KeyEvent:
		return p.typist.key(e)
	case vnc.PointerEvent:
		return p.typist.pointer(e)
	case vnc.Note:
		p.log.Info("playback", "note", e.Text)
	case vnc.WaitForIt:
		_, err := p.waitFor(ctx, e.Timeout, e.Image)
		if errors.Is(err, errSkipped) {
			return nil
		}
		return err
	case vnc.ClickIt:
		at, err := p.waitFor(ctx, e.Timeout, e.Image)
		if err != nil {
			return err
		}
		return p.typist.pointer(vnc.PointerEvent{Buttons: 1, X: uint16(at.X), Y: uint16(at.Y)})
	}
	return nil // LoadFile: the script has followed it
}
