package rfbplay

import (
	"errors"
	"image"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// maxLength bounds a recording in time: a longer one is not from this world.
const maxLength = 10 * 366 * 24 * time.Hour

// recording is an fb file that is being read, as the screen at a time.
type recording struct {
	f      *os.File
	size   int64
	read   atomic.Int64 // bytes of the file
	r      *vnc.FBReader
	screen *image.RGBA
	end    error // io.EOF after the last frame, io.ErrUnexpectedEOF if it was cut off
}

// openRecording reads the recording at path.
func openRecording(path string) (*recording, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a fifo must not hold us up
	if err != nil {
		return nil, errs.New(errs.NotFound, "cannot read %s: %w", path, plainError(err))
	}
	return newRecording(f)
}

// newRecording reads a recording from f, which it owns from then on.
func newRecording(f *os.File) (*recording, error) {
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is no plain file")
	}
	rec := &recording{f: f, screen: &image.RGBA{}}
	if err == nil {
		rec.size = st.Size()
		rec.r, err = vnc.NewFBReader(counter{f, &rec.read})
	}
	if err != nil {
		_ = f.Close()
		return nil, errs.WithRemedy(errs.New(errs.Invalid, "cannot play %s: %w", f.Name(), err), "give a file made by vnc record fb")
	}
	return rec, nil
}

func (r *recording) close() { _ = r.f.Close() }

// change is what a stretch of a recording did to the screen.
type change struct {
	area    image.Rectangle // of new pixels
	resized bool
}

func (c change) any() bool { return c.resized || !c.area.Empty() }

// advance reads until all has happened that happened up to t. r.end is set
// when nothing is left; the error is what makes the rest unreadable.
func (r *recording) advance(t time.Duration) (change, error) {
	var c change
	for r.end == nil {
		at, err := r.r.Offset()
		if err == nil && at > t {
			return c, nil
		}
		var f vnc.Frame
		if err == nil {
			f, err = r.r.Next()
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			r.end = err
			return c, nil
		}
		if err != nil {
			r.end = err
			return c, errs.New(errs.Invalid, "%s cannot be read beyond %s: %w", r.f.Name(), t.Round(time.Millisecond), err)
		}
		c.resized = c.resized || f.Update.Resized || f.Image.Rect != r.screen.Rect
		r.screen = f.Image
		c.area = c.area.Union(f.Update.Area)
	}
	return c, nil
}

// next returns when something happens after t, or false if nothing does.
func (r *recording) next() (time.Duration, bool) {
	if r.end != nil {
		return 0, false
	}
	at, err := r.r.Offset()
	if err != nil {
		return 0, false
	}
	return at, true
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
