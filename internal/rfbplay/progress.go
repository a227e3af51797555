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

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, every: 5 * time.Second, start: time.Now(), last: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.line, p.every = true, 200*time.Millisecond
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
	percent := 100 * float64(rec.read.Load()) / float64(max(rec.size, 1))
	text := fmt.Sprintf("rfbplay: %3.0f%%, at %s, %.0f times real time", min(percent, 100), at.Round(100*time.Millisecond), at.Seconds()/now.Sub(p.start).Seconds())
	if p.line {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

// done ends the line.
func (p *progress) done() {
	p.end = time.Now()
	if p.line && p.shown {
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
