package record

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"log/slog"
	"sync"
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
	p := &player{target: t, job: j, log: m.log.With("vm", t.Name, "file", path)}
	j.remaining = p.remaining
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
	script  *script
	typist  *typist
	total   time.Duration
	badSeen int

	mu     sync.Mutex // guards the fields below, which remaining reads
	played time.Duration
	next   time.Time // when the next event is due
}

func (p *player) prepare(ctx context.Context, path string) error {
	total, depth, err := survey(ctx, path)
	if err != nil {
		return err
	}
	if depth > warnDepth {
		p.log.Warn("kb files load each other deeply", "depth", depth)
	}
	p.total = total
	p.next = time.Now()
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
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		line, err := p.script.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		timer.Reset(p.advance(line.Delta))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if err := p.do(ctx, line.Event); err != nil {
			return fmt.Errorf("line %d: %w", line.Line, err)
		}
		p.job.items.Add(1)
	}
}

// advance moves the clock of the playback on and returns how long to wait.
// Events are due at times counted from the start, so that delays do not add up.
func (p *player) advance(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.played += d
	p.next = p.next.Add(d)
	return time.Until(p.next)
}

// restart makes now the time from which the next event counts.
func (p *player) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = time.Now()
}

func (p *player) remaining() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.total-p.played+max(time.Until(p.next), 0), 0)
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

// lookEvery is the time between two looks at the screen.
const lookEvery = time.Second

// waitFor looks at the screen until it shows the picture, and returns where.
func (p *player) waitFor(ctx context.Context, timeout time.Duration, name string) (image.Point, error) {
	template, err := loadTemplate(p.script.resolve, name)
	if err != nil {
		return image.Point{}, err
	}
	defer p.restart()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := vnc.Dial(ctx, p.target.Proxy.Dial, vnc.Options{})
	if err != nil {
		return image.Point{}, err
	}
	defer c.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		screen, err := c.Capture(ctx)
		if err == nil {
			if at, ok := find(ctx, toGrey(screen), template); ok {
				return at, nil
			}
		} else if ctx.Err() == nil {
			return image.Point{}, fmt.Errorf("look at the screen: %w", err)
		}
		select {
		case <-ctx.Done():
			return image.Point{}, fmt.Errorf("the screen did not show %.60s within %s", name, timeout)
		case <-tick.C:
		}
	}
}
