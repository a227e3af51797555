package record

import (
	"bytes"
	"context"
	"errors"
	"image"
	"log/slog"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

const (
	fbPeriod = 100 * time.Millisecond  // between two requests
	fbUpdate = 4*vnc.MaxPixels + 1<<20 // bytes of one message
)

// fbRecorder writes what a server sends, whole messages only, so that a
// recording ends between two of them whenever it ends.
type fbRecorder struct {
	client *vnc.Client
	job    *job
	out    *output
	w      *vnc.FBWriter
	tail   *tail
	log    *slog.Logger
	batch  time.Time     // when it began; zero while nothing was written since
	last   time.Duration // offset of the last chunk
	start  time.Time
	screen image.Rectangle // at the start
	msgs   chan fbMessage
	free   chan *bytes.Buffer // two, so that one is filled while the other is written
}

// fbMessage is one message of the server, or more if they came together.
type fbMessage struct {
	data    *bytes.Buffer
	at      time.Duration
	update  bool            // the answer to a request
	resized bool            // all must be asked for again
	screen  image.Rectangle // its size now
}

// newFBRecorder connects and starts the file.
func newFBRecorder(ctx context.Context, t Target, j *job, out *output, old *resumption) (*fbRecorder, error) {
	c, err := vnc.Dial(ctx, t.Proxy.Dial, vnc.Options{Discard: true, Encodings: []vnc.Encoding{vnc.EncRaw, vnc.EncDesktopSize}})
	if err != nil {
		return nil, errs.New(errs.Unreachable, "its screen does not answer: %w", err)
	}
	r := &fbRecorder{client: c, job: j, out: out, start: time.Now(),
		msgs: make(chan fbMessage), free: make(chan *bytes.Buffer, 2)}
	r.free <- &bytes.Buffer{}
	r.free <- &bytes.Buffer{}
	if old != nil { // offsets go on counting from the first start
		r.start = time.Now().Add(-max(time.Since(old.started), old.offset))
	}
	if err := r.begin(old); err != nil {
		_ = c.Close()
		return nil, err
	}
	return r, nil
}

func (r *fbRecorder) begin(old *resumption) error {
	if err := old.begin(r.out); err != nil {
		return err
	}
	var err error
	w, h := r.client.Size()
	r.screen = image.Rect(0, 0, w, h)
	offset := time.Duration(0)
	if old != nil {
		offset = time.Since(r.start)
	}
	if r.w, err = vnc.NewFBWriterAt(r.out, offset, w, h); err != nil {
		return err
	}
	return r.w.Seal()
}

// run records until ctx ends, the machine is gone, or the file cannot be written.
func (r *fbRecorder) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	if r.tail, err = openTail(r.job.entry.Beside(), r.out.File, r.out.length(), time.Since(r.start)); err != nil {
		r.log.Warn("a recording is not compressed as well as it can be", "file", r.job.path, "err", err)
	}
	var wg sync.WaitGroup
	var readErr error
	wg.Go(func() {
		defer close(r.msgs)
		readErr = r.read(ctx)
	})
	err = r.write(ctx)
	cancel()
	_ = r.client.Close()
	wg.Wait()
	if err == nil {
		err = readErr
	}
	if cerr := errors.Join(r.w.Close(), r.out.Close(), r.tail.close()); err == nil {
		err = cerr
	}
	return err
}

// read takes messages from the server. That the server leaves is no error: its
// machine has ended.
func (r *fbRecorder) read(ctx context.Context) error {
	buf := <-r.free
	if err := r.client.Tap(capped{buf}); err != nil {
		return err
	}
	var m fbMessage
	for {
		msg, err := r.client.Next()
		if errors.Is(err, errTooMuch) {
			return err
		}
		if err != nil {
			return nil
		}
		if u, ok := msg.(vnc.Update); ok {
			m.update = true
			m.resized = m.resized || u.Resized
		}
		if !r.client.Idle() {
			continue // the start of the next message is in buf already
		}
		w, h := r.client.Size()
		m.data, m.at, m.screen = buf, time.Since(r.start), image.Rect(0, 0, w, h)
		select {
		case r.msgs <- m:
		case <-ctx.Done():
			return nil
		}
		m = fbMessage{}
		buf = <-r.free
		buf.Reset()
		if err := r.client.Tap(capped{buf}); err != nil {
			return err
		}
	}
}

// write asks for what changed, ten times a second, and writes what comes.
func (r *fbRecorder) write(ctx context.Context) error {
	tick := time.NewTicker(fbPeriod)
	defer tick.Stop()
	ask := asking{screen: r.screen, whole: true, due: true}
	for {
		if err := ask.send(r.client); err != nil {
			return nil // the machine has ended
		}
		select {
		case <-ctx.Done():
			return r.w.Mark(time.Since(r.start))
		case m, ok := <-r.msgs:
			if !ok {
				return r.w.Mark(time.Since(r.start))
			}
			if err := r.message(m, &ask); err != nil {
				return err
			}
		case <-tick.C:
			ask.due = true
			if !r.batch.IsZero() && time.Since(r.batch) >= batchTime {
				if err := r.fold(); err != nil {
					return err
				}
			}
		}
	}
}

func (r *fbRecorder) message(m fbMessage, ask *asking) error {
	safe := r.tail.chunk(m.at, m.data.Bytes())
	err := r.w.WriteChunk(m.at, m.data.Bytes())
	r.free <- m.data
	if err != nil {
		return err
	}
	if r.batch.IsZero() {
		r.batch = time.Now()
	}
	r.last = m.at
	if !safe || r.tail.full() {
		if err := r.fold(); err != nil {
			return err
		}
	}
	if m.update {
		r.job.items.Add(1)
		ask.open = false
	}
	ask.whole = ask.whole || m.resized
	ask.screen = m.screen
	return nil
}

// fold ends a batch: the recording has it.
func (r *fbRecorder) fold() error {
	r.batch = time.Time{}
	if err := r.w.Seal(); err != nil {
		return err
	}
	if err := r.tail.begin(r.out.length(), r.last); err != nil {
		r.log.Warn("a recording is not compressed as well as it can be", "file", r.job.path, "err", err)
	}
	return nil
}

// asking says what to ask the server for, and when.
type asking struct {
	screen image.Rectangle
	whole  bool // and not only what changed
	open   bool // the last request has not been answered
	due    bool // a period has passed
}

// send asks if it is time to.
func (a *asking) send(c *vnc.Client) error {
	if !a.due || a.open && !a.whole {
		return nil
	}
	whole := a.whole
	a.open, a.whole, a.due = true, false, false
	return c.Request(!whole, a.screen)
}

var errTooMuch = errors.New("the screen sent a larger update than can be recorded")

// capped is a buffer that does not grow beyond one message's size.
type capped struct{ *bytes.Buffer }

func (c capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > fbUpdate {
		return 0, errTooMuch
	}
	return c.Buffer.Write(p)
}
