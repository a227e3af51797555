package rfbplay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"minimega/pkg/vnc"
)

// Keys of viewers, as X11 keysyms.
const (
	keySpace = 0x20
	keyLeft  = 0xff51
	keyRight = 0xff53
	keyHome  = 0xff50
)

// seekBy is how far the arrow keys go.
const seekBy = 10 * time.Second

// serveVNC shows the recording to VNC viewers, to each from the start.
func (c *Config) serveVNC(ctx context.Context, stdout, stderr io.Writer) error {
	rec, err := openRecording(c.Input) // to say at once what is wrong
	if err != nil {
		return err
	}
	rec.close()
	ln, err := listen(ctx, c.address(c.VNC))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	fmt.Fprintf(stdout, "%s shows %s to VNC viewers; space holds it, the arrow keys seek by %s, Home starts again\n", ln.Addr(), c.Input, seekBy)
	log := slog.New(slog.NewTextHandler(stderr, nil))
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			_ = ln.Close()
			return err
		}
		wg.Go(func() {
			if err := c.viewer(ctx, conn); err != nil && ctx.Err() == nil {
				log.Info("a viewer was sent away", "viewer", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// viewer plays to one viewer until it leaves.
func (c *Config) viewer(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	screen, err := vnc.NewScreen(1, 1)
	if err != nil {
		_ = conn.Close()
		return err
	}
	s := &show{config: c, screen: screen, keys: make(chan uint32, 16)}
	if err := s.open(c.Offset); err != nil {
		if s.rec != nil { // it was opened, and cannot be played up to there
			s.rec.close()
		}
		_ = conn.Close()
		return err
	}
	var wg sync.WaitGroup
	var played error
	wg.Go(func() {
		if played = s.run(ctx); played != nil {
			cancel()
		}
	})
	err = vnc.Serve(ctx, conn, screen, "rfbplay "+c.Input, s.input)
	cancel()
	wg.Wait()
	if played != nil && !errors.Is(played, context.Canceled) {
		return played
	}
	return err
}

// show is a recording that plays on a screen and heeds keys.
type show struct {
	config *Config
	screen *vnc.Screen
	keys   chan uint32
	rec    *recording
	at     time.Duration
	held   bool
}

// input takes a viewer's keys; one that comes too fast is left out.
func (s *show) input(in vnc.Input) {
	if k, ok := in.(vnc.KeyEvent); ok && k.Down {
		select {
		case s.keys <- k.Keysym:
		default:
		}
	}
}

// open starts at an offset.
func (s *show) open(at time.Duration) error {
	rec, err := openRecording(s.config.Input)
	if err != nil {
		return err
	}
	if s.rec != nil {
		s.rec.close()
	}
	s.rec, s.at = rec, 0
	return s.goTo(at, true)
}

func (s *show) run(ctx context.Context) error {
	defer func() { s.rec.close() }()
	tick := time.NewTicker(s.config.period())
	defer tick.Stop()
	last := time.Now()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case k := <-s.keys:
			err = s.key(k)
			last = time.Now()
		case <-tick.C:
			now := time.Now()
			if !s.held {
				err = s.goTo(s.at+now.Sub(last), false)
			}
			last = now
		}
		if err != nil {
			return err
		}
	}
}

func (s *show) key(k uint32) error {
	switch k {
	case keySpace:
		s.held = !s.held
	case keyRight:
		return s.goTo(s.at+seekBy, false)
	case keyLeft:
		return s.open(max(s.at-seekBy, 0))
	case keyHome:
		return s.open(0)
	}
	return nil
}

// goTo brings the screen to a later time.
func (s *show) goTo(at time.Duration, all bool) error {
	if s.rec.end != nil && !all {
		return nil // the last picture stays
	}
	c, err := s.rec.advance(at)
	s.at = at
	if err != nil || s.rec.screen.Rect.Empty() || !c.any() && !all {
		return err
	}
	if c.resized || all {
		return s.screen.Show(s.rec.screen)
	}
	return s.screen.Paint(s.rec.screen, c.area)
}
