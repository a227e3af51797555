package rfbplay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/term"
)

// progress tells how far a transcoding is: on a terminal in one line that
// changes, elsewhere in a line now and then.
type progress struct {
	w     io.Writer
	line  bool
	every time.Duration
	start time.Time
	last  time.Time
	shown bool
	end   time.Time
}

// newProgress says something at such intervals; 0 means as people like it there.
func newProgress(w io.Writer, every time.Duration) *progress {
	p := &progress{w: w, every: 5 * time.Second, start: time.Now(), last: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.line, p.every = true, 200*time.Millisecond
	}
	if every != 0 {
		p.every = every
	}
	return p
}

// show says that the time at of the recording is reached, if it is time to.
func (p *progress) show(rec *recording, at time.Duration) {
	now := time.Now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last, p.shown = now, true
	// All of it is read before all is made: done says 100.
	p.say(min(100*float64(rec.read.Load())/float64(max(rec.size, 1)), 99), at)
}

func (p *progress) say(percent float64, at time.Duration) {
	text := fmt.Sprintf("rfbplay: %3.0f%%, at %s, %.0f times real time", percent, at.Round(100*time.Millisecond), at.Seconds()/time.Since(p.start).Seconds())
	if p.line {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// done ends the line, with all of the work done if there is no error: that of a
// recording of such a length. Work that took no time to speak of says nothing.
func (p *progress) done(length time.Duration, err error) {
	p.end = time.Now()
	if !p.shown {
		return
	}
	if err == nil {
		p.say(100, length)
	}
	if p.line {
		fmt.Fprintln(p.w)
	}
}

func (p *progress) took() time.Duration { return p.end.Sub(p.start) }

// plainError is err without the path that the message names already.
func plainError(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func joinPort(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }
