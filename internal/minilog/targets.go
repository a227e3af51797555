package minilog

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// MaxRing bounds the size of the ring, in records.
const MaxRing = 1 << 20

const (
	queueLength  = 1024        // entries that wait for a slow reader; more are dropped and counted
	drainTimeout = time.Second // how long close waits for it
)

// fileTarget appends to a file.
type fileTarget struct{ f *os.File }

// A failed write is dropped: there is nowhere to report it.
func (t *fileTarget) write(e *entry) { _, _ = t.f.WriteString(e.line() + "\n") }
func (t *fileTarget) close() error   { return t.f.Close() }

// ring keeps the last entries.
type ring struct {
	size  int
	lines []string
	next  int // where the next line goes once lines is full
}

func (t *ring) write(e *entry) {
	line := e.prologue("2006/1/2 15:4:5") + e.text
	if len(t.lines) < t.size {
		t.lines = append(t.lines, line)
		return
	}
	t.lines[t.next] = line
	t.next = (t.next + 1) % t.size
}

// dump returns the lines, oldest first.
func (t *ring) dump() []string {
	return append(slices.Clone(t.lines[t.next:]), t.lines[:t.next]...)
}

func (t *ring) close() error { return nil }

// queue decouples the program from a reader that may be slow or stuck.
type queue struct {
	entries chan *entry
	dropped atomic.Int64
	done    chan struct{}
}

// newQueue starts a goroutine that passes entries to print until close.
func newQueue(print func(e *entry)) *queue {
	q := &queue{entries: make(chan *entry, queueLength), done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for e := range q.entries {
			if n := q.dropped.Swap(0); n > 0 {
				print(&entry{time: e.time, level: slog.LevelWarn, source: "minilog", text: fmt.Sprintf("%d records dropped: the reader of this log is slow", n)})
			}
			print(e)
		}
	}()
	return q
}

func (q *queue) write(e *entry) {
	select {
	case q.entries <- e:
	default:
		q.dropped.Add(1)
	}
}

// close waits for what is queued. A reader that is stuck keeps the goroutine,
// and nothing else, until it moves or the program ends.
func (q *queue) close() error {
	close(q.entries)
	t := time.NewTimer(drainTimeout)
	defer t.Stop()
	select {
	case <-q.done:
	case <-t.C:
	}
	return nil
}

// newConsole prints to w, with colours if asked to.
func newConsole(w io.Writer, colour bool) target {
	return newQueue(func(e *entry) {
		line := e.line()
		if colour {
			line = e.coloured()
		}
		_, _ = io.WriteString(w, line+"\n") // a failed write is dropped: there is nowhere to report it
	})
}

// coloured is the line with the prologue in yellow and the text in the colour
// of its level.
func (e *entry) coloured() string {
	colour := "\x1b[34m" // blue
	switch {
	case e.level >= slog.LevelError:
		colour = "\x1b[31m" // red
	case e.level >= slog.LevelWarn:
		colour = "\x1b[33m" // yellow
	case e.level >= slog.LevelInfo:
		colour = "\x1b[32m" // green
	}
	return "\x1b[33m" + e.prologue("2006/01/02 15:04:05") + colour + e.text + "\x1b[0m"
}
