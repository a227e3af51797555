// Package statefile keeps a file that shows the state of its owner. The owner
// says that something changed and goes on; one goroutine waits a moment, renders
// the latest state and replaces the file, so that a burst of changes costs few
// writes and a reader never sees half a file.
package statefile

import (
	"bytes"
	"log/slog"
	"os"
	"sync"
	"time"

	"minimega/internal/host"
)

// moment is how long a change may wait for others before it is written.
const moment = 50 * time.Millisecond

// File writes what render returns to a path. Methods may be called by any
// goroutine.
type File struct {
	path   string
	render func() []byte
	log    *slog.Logger

	poke  chan struct{}
	flush chan chan error
	stop  chan struct{}
	once  sync.Once
	done  chan error
	err   error  // valid once closed has been called
	last  []byte // what the file holds; owned by the goroutine
}

// New starts the writer. Nothing is written before the first Changed or Flush.
// render must return the whole content, and may take its owner's lock.
func New(path string, render func() []byte, log *slog.Logger) *File {
	f := &File{
		path: path, render: render, log: log,
		poke:  make(chan struct{}, 1),
		flush: make(chan chan error),
		stop:  make(chan struct{}),
		done:  make(chan error, 1),
	}
	go f.run()
	return f
}

// Changed asks for a write soon. It never blocks; after Close it does nothing.
func (f *File) Changed() {
	select {
	case f.poke <- struct{}{}:
	default: // a write that will see this change is due already
	}
}

// Flush writes the present state and returns when it is in the file.
func (f *File) Flush() error {
	reply := make(chan error, 1)
	select {
	case f.flush <- reply:
		return <-reply
	case <-f.stop:
		return os.ErrClosed
	}
}

// Close writes what is due and ends the writer.
func (f *File) Close() error {
	f.once.Do(func() {
		close(f.stop)
		f.err = <-f.done
	})
	return f.err
}

func (f *File) run() {
	var due <-chan time.Time // nil while nothing is to be written
	for {
		select {
		case <-f.poke:
			if due == nil {
				due = time.After(moment)
			}
		case <-due:
			due = nil
			if err := f.write(); err != nil {
				f.log.Error("cannot write state file", "path", f.path, "err", err)
			}
		case reply := <-f.flush:
			due = nil
			reply <- f.write()
		case <-f.stop:
			f.done <- f.rest(due != nil)
			return
		}
	}
}

// rest does the write that is still due, if any.
func (f *File) rest(due bool) error {
	select {
	case <-f.poke:
		due = true
	default:
	}
	if !due {
		return nil
	}
	return f.write()
}

func (f *File) write() error {
	data := f.render()
	if f.last != nil && bytes.Equal(data, f.last) {
		return nil
	}
	if err := host.WriteVolatile(f.path, data, 0o600); err != nil {
		f.Changed() // so that Close tries again
		return err
	}
	f.last = data
	return nil
}
