// Package minilog writes the daemon's and the tools' log: one line per record,
// `YYYY/MM/DD HH:MM:SS LEVEL file.go:NN: text key=value`, to any of five
// targets (stderr, a file, a ring in memory, syslog, another host) that can be added, taken
// away and set while the program runs.
//
// Everything else in this module logs through the *slog.Logger that Logger
// returns; only main and the `log` commands know this package.
package minilog

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/term"
)

// The names of the targets.
const (
	Stderr = "stderr"
	File   = "file"
	Ring   = "ring"
	Syslog = "syslog"
	Mesh   = "mesh"
)

// target takes finished entries. write is called with Log's mutex held, so it
// must not wait for anybody: what may be slow queues (see queue).
type target interface {
	write(e *entry)
	close() error
}

// Log is the owner of the targets. Safe for concurrent use.
type Log struct {
	startLevel slog.Level
	stderr     io.Writer
	colour     bool
	level      atomic.Int64 // the lowest level that is printed; read without the mutex
	active     atomic.Bool  // there is a target at all

	mu      sync.Mutex // guards the fields below
	targets map[string]target
	file    string
	filters []string
	node    string // where the mesh target sends
}

// New makes a log as o says. stderr is where the stderr target writes, coloured
// if it is a terminal and NO_COLOR (https://no-color.org) is not set.
func New(o Options, stderr io.Writer) (*Log, error) {
	l := &Log{
		startLevel: o.Level, stderr: stderr, colour: isTerminal(stderr) && os.Getenv("NO_COLOR") == "",
		targets: map[string]target{},
	}
	l.SetLevel(o.Level)
	l.SetStderr(o.Verbose)
	if o.File != "" {
		if err := l.SetFile(o.File); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Logger returns a logger that writes to whatever targets there are at the
// time of each record.
func (l *Log) Logger() *slog.Logger { return slog.New(&handler{log: l}) }

// Close ends all targets. What is queued is written, within a second.
func (l *Log) Close() error {
	l.mu.Lock()
	ts := l.targets
	l.targets = map[string]target{}
	l.active.Store(false)
	l.mu.Unlock()
	var all []error
	for _, t := range ts {
		all = append(all, t.close())
	}
	return errors.Join(all...)
}

// set puts t in the place of the target of that name, whose file or host is
// named by file; nil takes it away. The one that was there is closed, with the mutex free.
func (l *Log) set(name, file string, t target) error {
	l.mu.Lock()
	old := l.targets[name]
	delete(l.targets, name)
	if t != nil {
		l.targets[name] = t
	}
	switch name {
	case File:
		l.file = file
	case Mesh:
		l.node = file
	}
	l.active.Store(len(l.targets) > 0)
	l.mu.Unlock()
	if old != nil {
		return old.close()
	}
	return nil
}

func (l *Log) has(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.targets[name] != nil
}

// write passes e to all targets, unless a filter drops it.
func (l *Log) write(e *entry) {
	text := e.line()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.filters {
		if strings.Contains(text, f) {
			return
		}
	}
	for name, t := range l.targets {
		if !e.foreign || name != Mesh { // else two hosts could send it to and fro
			t.write(e)
		}
	}
}

// Level returns the level at and above which records are printed.
func (l *Log) Level() slog.Level { return slog.Level(l.level.Load()) }

// SetLevel sets it, for all targets.
func (l *Log) SetLevel(level slog.Level) { l.level.Store(int64(level)) }

// ResetLevel returns to the level the log was made with.
func (l *Log) ResetLevel() { l.SetLevel(l.startLevel) }

// HasStderr reports whether the log goes to stderr.
func (l *Log) HasStderr() bool { return l.has(Stderr) }

// SetStderr starts or stops logging to stderr.
func (l *Log) SetStderr(on bool) {
	switch {
	case !on:
		_ = l.set(Stderr, "", nil) // closing only drains the queue
	case !l.has(Stderr):
		_ = l.set(Stderr, "", newConsole(l.stderr, l.colour))
	}
}

// Path returns the file that is logged to, or "".
func (l *Log) Path() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file
}

// SetFile appends the log to the file at path instead of the one before, and
// makes the directories above it. With "" it stops logging to a file.
func (l *Log) SetFile(path string) error {
	if path == "" {
		return l.set(File, "", nil)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o660)
	if err != nil {
		return err
	}
	return l.set(File, path, &fileTarget{f})
}

// SetRing starts an empty ring that keeps the last size records, at most
// MaxRing; 0 takes the ring away.
func (l *Log) SetRing(size int) {
	if size <= 0 {
		_ = l.set(Ring, "", nil) // a ring's close cannot fail
		return
	}
	_ = l.set(Ring, "", &ring{size: min(size, MaxRing)})
}

// Dump returns the lines of the ring, oldest first, and whether there is a ring.
func (l *Log) Dump() ([]string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.targets[Ring].(*ring)
	if !ok {
		return nil, false
	}
	return r.dump(), true
}

// Filters returns the texts that suppress a record.
func (l *Log) Filters() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.filters)
}

// AddFilter suppresses records whose line contains text.
func (l *Log) AddFilter(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.filters, text) {
		l.filters = append(slices.Clip(l.filters), text)
	}
}

// ClearFilters suppresses nothing any more.
func (l *Log) ClearFilters() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filters = nil
}
