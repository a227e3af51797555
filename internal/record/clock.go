package record

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// Why a playback cannot be steered.
var (
	errNotPauseable = errs.New(errs.State, "playback not pauseable")
	errNotPlayable  = errs.New(errs.State, "playback not playable")
	errNotStepable  = errs.New(errs.State, "playback not stepable")
)

// clock says when the events of a playback are due, and lets others stop it,
// move it on and put events in between. Events are due at times counted from
// the start, so that delays do not add up.
type clock struct {
	wake chan struct{} // something has changed

	mu      sync.Mutex // guards the fields below
	total   time.Duration
	played  time.Duration // deltas of the events so far, with the next one
	next    time.Time     // when the next event is due, unless paused
	paused  bool
	left    time.Duration // how long the next event has to wait, if paused
	line    vnc.KBLine    // the next event
	steps   int           // events to let go without waiting
	moved   chan struct{} // closed when the next event is another, or takes its time
	skip    func()        // ends a wait for a picture; nil while there is none
	skipped bool
	queue   []inserted
	over    bool // the last event has been played
}

// inserted is an event that somebody puts in between.
type inserted struct {
	line vnc.KBLine
	path string // names the directory from which paths in it count
}

func newClock() *clock {
	return &clock{wake: make(chan struct{}, 1), moved: make(chan struct{}), next: time.Now()}
}

// begin starts the time of a playback that lasts total.
func (c *clock) begin(total time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total, c.next = total, time.Now()
}

// takeLast returns what was inserted after the last event. Nothing can be
// inserted any more once that is nothing.
func (c *clock) takeLast() []inserted {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queue
	c.queue = nil
	c.over = len(q) == 0
	if c.over {
		c.moveLocked()
	}
	return q
}

// tell makes the playback look at what has changed.
func (c *clock) tell() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *clock) moveLocked() {
	close(c.moved)
	c.moved = make(chan struct{})
}

// load makes line the next event.
func (c *clock) load(line vnc.KBLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.played += line.Delta
	c.line = line
	if c.paused {
		c.left = line.Delta
	} else {
		c.next = c.next.Add(line.Delta)
	}
	c.moveLocked()
}

// verdict says what to do with the next event.
type verdict int

const (
	wait   verdict = iota
	play           // it is due
	putOff         // others come before it
)

// look says what to do now and, if that is to wait, how long; negative: until told.
func (c *clock) look() (verdict, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.queue) > 0:
		return putOff, 0
	case c.steps > 0:
		c.steps--
		c.next = time.Now()
		return play, 0
	case c.paused:
		return wait, -1
	}
	d := time.Until(c.next)
	if d <= 0 {
		return play, 0
	}
	return wait, d
}

// takeQueue returns what comes before the next event.
func (c *clock) takeQueue() []inserted {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queue
	c.queue = nil
	return q
}

// unload is the reverse of load: it returns the next event with the time that
// it still has to wait.
func (c *clock) unload() vnc.KBLine {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := c.line
	line.Delta = c.leftLocked()
	c.played -= line.Delta
	if !c.paused {
		c.next = time.Now()
	}
	return line
}

func (c *clock) leftLocked() time.Duration {
	if c.paused {
		return c.left
	}
	return max(time.Until(c.next), 0)
}

// insert puts an event before the next one, and with it length to play. It
// returns false if the playback is over.
func (c *clock) insert(i inserted, length time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.queue = append(c.queue, i)
	c.total += length
	c.tell()
	return true
}

// waiting says that the next event waits for a picture, which skip ends; nil
// says that it does not any more, and returns whether it was skipped. The
// event after it counts from then.
func (c *clock) waiting(skip func()) (skipped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	skipped = c.skipped
	c.skip, c.skipped = skip, false
	c.next = time.Now()
	if skip != nil {
		c.moveLocked()
	}
	return skipped
}

func (c *clock) pause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		return errNotPauseable
	}
	c.paused, c.left = true, max(time.Until(c.next), 0)
	c.tell()
	return nil
}

func (c *clock) resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.paused {
		return errNotPlayable
	}
	c.paused, c.next = false, time.Now().Add(c.left)
	c.tell()
	return nil
}

// step lets the next event go without waiting, and returns a channel that is
// closed once that has happened. One that waits for a picture waits no longer,
// unless the picture is to be clicked at.
func (c *clock) step() (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.skip == nil {
		c.steps++
		c.tell()
		return c.moved, nil
	}
	if _, click := c.line.Event.(vnc.ClickIt); click || c.skipped {
		return nil, errNotStepable
	}
	c.skipped = true
	c.skip()
	return c.moved, nil
}

// show returns the next event as it stands in a kb file, pictures cut short.
func (c *clock) show() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.line.Event.(vnc.Note); ok {
		return "#: " + n.Text
	}
	return fmt.Sprintf("%d:%.200s", c.line.Delta, vnc.FormatKBEvent(c.line.Event))
}

// describe tells what remains, for people.
func (c *clock) describe() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused {
		return "PAUSED"
	}
	d := max(c.total-c.played+c.leftLocked(), 0)
	return d.Round(time.Second).String() + " remaining"
}

var errSkipped = errors.New("stepped over")
