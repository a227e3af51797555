// Package record owns what is recorded from and played to the screens of
// machines: fb recordings (what the screen showed), kb recordings (what people
// at VNC clients typed and pointed at) and playbacks of the latter.
//
// Every recording and playback is a job with one goroutine, in a table by
// kind, namespace and VM name. A job that fails on its own is logged and stays
// in the table, unlisted, until somebody stops it and reads why.
package record

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/pkg/vnc"
)

// Kinds of jobs, as List shows them.
const (
	TypeKB       = "record kb"
	TypeFB       = "record fb"
	TypePlayback = "playback kb"
)

// Target is a machine with a screen. ID is its number on this host; Proxy is
// nil while it has no screen.
type Target struct {
	ID        int
	Name      string
	Namespace string
	Proxy     *vnc.Proxy
}

// Info describes a running recording or playback.
type Info struct {
	Name      string // of the VM
	Namespace string
	Type      string // TypeKB, TypeFB or TypePlayback
	Time      string // since the start, or what remains of a playback, or PAUSED
	Filename  string
	Items     int64 // events recorded or played, updates of the screen recorded
	Bytes     int64 // in the file, or 0 for a playback
}

// Manager is the owner of all recordings and playbacks. It is safe for all goroutines.
type Manager struct {
	log     *slog.Logger
	journal *journal.Journal // of recordings, for a later process; nil keeps nothing
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup // every job, and Type

	mu     sync.Mutex // guards the fields below
	jobs   map[key]*job
	closed bool
}

type key struct{ kind, namespace, name string }

// New makes an owner without recordings.
func New(log *slog.Logger) *Manager {
	m := &Manager{log: log, jobs: map[key]*job{}}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// List returns what runs, ordered by namespace, VM and type.
func (m *Manager) List() []Info {
	m.mu.Lock()
	var infos []Info
	for _, j := range m.jobs {
		if j.running() {
			infos = append(infos, j.info())
		}
	}
	m.mu.Unlock()
	slices.SortFunc(infos, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return infos
}

// Stop ends the recording of a VM; kind is "kb" or "fb". The file is complete
// when it returns. The error is errs.NotFound if there is none, and the reason
// if the recording had failed before.
func (m *Manager) Stop(kind, namespace, name string) error {
	if kind != "kb" && kind != "fb" {
		return errs.New(errs.Invalid, "%q is not a kind of recording: kb or fb", kind)
	}
	j := m.take(key{"record " + kind, namespace, name})
	if j == nil {
		return errs.New(errs.NotFound, "%s recording %s not found", kind, name)
	}
	if err := j.end(); err != nil {
		return errs.InVM(errs.AtStep(err, "record "+kind), name)
	}
	return nil
}

// StopPlay ends the playback to a VM and releases the keys that it holds down.
func (m *Manager) StopPlay(namespace, name string) error {
	j := m.take(key{TypePlayback, namespace, name})
	if j == nil {
		return noPlayback(name)
	}
	if err := j.end(); err != nil {
		return errs.InVM(errs.AtStep(err, "play"), name)
	}
	return nil
}

// StopAll ends all recordings and playbacks of a namespace, or of all if it is "".
func (m *Manager) StopAll(namespace string) error {
	return m.endWhere(func(j *job) bool { return namespace == "" || j.key.namespace == namespace })
}

// ForgetVM ends what belongs to the VM with that number, and returns when its
// files are complete. What had failed before was logged then.
func (m *Manager) ForgetVM(id int) {
	_ = m.endWhere(func(j *job) bool { return j.vm == id })
}

// Close ends everything and returns when all files are complete, or ctx ends.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errs.New(errs.State, "recordings are still being completed: %w", ctx.Err())
	}
}

// take removes the job from the table.
func (m *Manager) take(k key) *job {
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.jobs[k]
	if j != nil && !j.started {
		return nil // it does not exist yet for anybody but its starter
	}
	delete(m.jobs, k)
	return j
}

// endWhere ends the jobs that match, all at once.
func (m *Manager) endWhere(match func(*job) bool) error {
	var ending []*job
	m.mu.Lock()
	for k, j := range m.jobs {
		switch {
		case !match(j):
		case j.started:
			delete(m.jobs, k)
			ending = append(ending, j)
		default:
			j.doomed = true
		}
	}
	m.mu.Unlock()
	for _, j := range ending {
		j.cancel()
	}
	var failed []error
	for _, j := range ending {
		if err := j.end(); err != nil {
			failed = append(failed, errs.InVM(err, j.key.name))
		}
	}
	return errors.Join(failed...)
}

// begin reserves j's place in the table, so that nobody else starts the same.
func (m *Manager) begin(j *job, taken error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errs.New(errs.State, "recordings are shutting down")
	}
	if old := m.jobs[j.key]; old != nil && old.running() {
		return taken
	}
	if j.output {
		for _, other := range m.jobs {
			if other.output && other.path == j.path && other.running() {
				return errs.WithRemedy(errs.New(errs.State, "%s is being written by the %s of %s", j.path, other.key.kind, other.key.name),
					"give another file name, or stop that recording first")
			}
		}
	}
	m.jobs[j.key] = j
	m.wg.Add(1)
	return nil
}

// launch runs a job that has been begun; abandon forgets it.
func (m *Manager) launch(j *job, run func(context.Context) error) {
	var ctx context.Context
	m.mu.Lock()
	ctx, j.cancel = context.WithCancel(m.ctx)
	j.started = true
	if j.start.IsZero() { // else an earlier process began it
		j.start = time.Now()
	}
	if j.doomed {
		j.cancel()
	}
	m.mu.Unlock()
	go func() {
		defer m.wg.Done()
		defer j.cancel()
		j.err = run(ctx)
		if err := j.entry.Remove(); err != nil {
			m.log.Warn("a recording that ended will be taken up by the next minimega", "file", j.path, "err", err)
		}
		close(j.done)
		m.ended(j)
	}()
}

func (m *Manager) abandon(j *job) {
	defer m.wg.Done()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.jobs[j.key] == j {
		delete(m.jobs, j.key)
	}
}

// ended logs a failure of a job that nobody stopped, and forgets one without.
func (m *Manager) ended(j *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.jobs[j.key] != j {
		return // whoever stops it gets the error
	}
	if j.err != nil {
		m.log.Warn(j.key.kind+" failed", "namespace", j.key.namespace, "vm", j.key.name, "file", j.path, "err", j.err)
		return
	}
	delete(m.jobs, j.key)
}
