// Package jobs runs the programs that a user asks for with `shell` and
// `background`: without a shell, each in a process group of its own, output
// kept up to a bound.
//
// A Table owns all processes it started and the goroutines that watch them.
// Close ends what still runs and waits for it.
package jobs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/journal"
)

// MaxFinished is how many finished jobs are kept; the ones that ended first go
// when a new one starts.
const MaxFinished = 50

// Job is what is known of a background process.
type Job struct {
	ID      int // from 1
	PID     int
	Running bool   // until the process has ended and nobody holds its output open
	Error   string // how it ended, "" for exit status 0
	Start   time.Time
	End     time.Time // zero while it runs
	Command []string
}

// job is a Job with its process.
type job struct {
	Job
	proc  *process
	entry *journal.Entry
}

// Table owns the background processes. Safe for concurrent use.
type Table struct {
	log     *slog.Logger
	journal *journal.Journal // of processes that run; nil keeps nothing
	ctx     context.Context  // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // one per watched process

	mu     sync.Mutex // guards the fields below
	lastID int
	jobs   map[int]*job
	closed bool
}

// New makes an empty table. The output of background processes is logged at
// level info, line by line.
func New(log *slog.Logger) *Table {
	ctx, cancel := context.WithCancel(context.Background())
	return &Table{log: log, ctx: ctx, cancel: cancel, jobs: map[int]*job{}}
}

// Close kills the process groups of the running jobs and waits for them.
func (t *Table) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
	return nil
}

// enter registers one process to come, unless the table is closed; the caller
// owes a wg.Done.
func (t *Table) enter() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errs.New(errs.State, "minimega is shutting down")
	}
	t.wg.Add(1)
	return nil
}

// Start runs args[0], found in $PATH, in the background and returns its id.
func (t *Table) Start(args []string) (int, error) {
	if err := t.enter(); err != nil {
		return 0, err
	}
	p, err := start(args)
	if err != nil {
		t.wg.Done()
		return 0, err
	}
	j := t.add(p, args)
	t.note(j)
	p.stdout.tee = t.lines(j.ID, "stdout")
	p.stderr.tee = t.lines(j.ID, "stderr")
	go func() {
		defer t.wg.Done()
		t.watch(j)
	}()
	return j.ID, nil
}

func (t *Table) add(p *process, args []string) *job {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(MaxFinished)
	t.lastID++
	j := &job{Job: Job{ID: t.lastID, PID: p.cmd.Process.Pid, Running: true, Start: time.Now(), Command: slices.Clone(args)}, proc: p}
	t.jobs[j.ID] = j
	return j
}

// watch waits for j and writes down how it ended.
func (t *Table) watch(j *job) {
	err := j.proc.wait(t.ctx, forever)
	if gone := j.entry.Remove(); gone != nil {
		t.log.Warn("the note of a background process remains", "job", j.ID, "err", gone)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	j.Running, j.End = false, time.Now()
	if err != nil {
		j.Error = err.Error()
	}
}

// lines logs what is written to it, line by line.
func (t *Table) lines(id int, stream string) func(io.Reader) {
	return func(r io.Reader) {
		s := bufio.NewScanner(r)
		s.Buffer(nil, maxLine)
		s.Split(shortLines)
		for s.Scan() {
			t.log.Info(s.Text(), "job", id, "stream", stream)
		}
	}
}

// Run runs args[0], found in $PATH, to its end and returns what it wrote. The
// error is that of the process ("exit status N") or of finding it. When ctx
// ends, its whole process group is killed.
//
// A child that the program leaves behind may hold the output open: Run waits
// for it for a moment, returns what there is, and the table reads the rest.
func (t *Table) Run(ctx context.Context, args []string) (stdout, stderr string, err error) {
	if err := t.enter(); err != nil {
		return "", "", err
	}
	defer t.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	p, err := start(args)
	if err != nil {
		return "", "", err
	}
	err = p.wait(ctx, lingering)
	t.wg.Go(func() { p.discard(t.ctx) })
	if ctx.Err() != nil {
		err = fmt.Errorf("%s: interrupted", args[0])
	}
	return p.stdout.String(), p.stderr.String(), err
}

// List returns all jobs by id.
func (t *Table) List() []Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Job
	for _, j := range t.jobs {
		all = append(all, j.Job)
	}
	slices.SortFunc(all, func(a, b Job) int { return a.ID - b.ID })
	return all
}

func (t *Table) find(id int) (*job, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j, ok := t.jobs[id]
	if !ok {
		return nil, errs.New(errs.NotFound, "provided id does not exist in background process table")
	}
	return &job{Job: j.Job, proc: j.proc}, nil
}

// Job returns one job.
func (t *Table) Job(id int) (Job, error) {
	j, err := t.find(id)
	if err != nil {
		return Job{}, err
	}
	return j.Job, nil
}

// Output returns what a finished job wrote to its standard output and error.
func (t *Table) Output(id int) (stdout, stderr string, err error) {
	j, err := t.find(id)
	if err != nil {
		return "", "", err
	}
	if j.Running {
		return "", "", errs.New(errs.State, "wait for process to finish before reading output")
	}
	return j.proc.stdout.String(), j.proc.stderr.String(), nil
}

// Clear forgets the finished jobs and returns how many there were.
func (t *Table) Clear() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dropLocked(0)
}

// dropLocked forgets finished jobs until keep are left, those that ended first
// going first.
func (t *Table) dropLocked(keep int) int {
	var done []*job
	for _, j := range t.jobs {
		if !j.Running {
			done = append(done, j)
		}
	}
	slices.SortFunc(done, func(a, b *job) int { return a.End.Compare(b.End) })
	n := max(0, len(done)-keep)
	for _, j := range done[:n] {
		delete(t.jobs, j.ID)
	}
	return n
}

// CommandLine is the command as text, words joined by blanks.
func (j Job) CommandLine() string { return strings.Join(j.Command, " ") }
