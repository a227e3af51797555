package record

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/journal"
	"minimega/pkg/vnc"
)

// saved is what the journal knows of a recording.
type saved struct {
	Kind      string
	Namespace string
	Name      string // of the VM
	VM        int
	Path      string
	Started   time.Time
}

// Open makes an owner whose recordings a later one can take up: each has an
// entry in the journal at dir.
func Open(dir string, log *slog.Logger) *Manager {
	m := New(log)
	m.journal = journal.Open(dir)
	return m
}

// note writes the journal's entry of a recording that is about to run.
func (m *Manager) note(j *job, old *resumption) (err error) {
	if old != nil {
		j.entry, j.start = old.entry, old.started
		return nil
	}
	j.entry, err = m.journal.Add(saved{Kind: j.key.kind, Namespace: j.key.namespace, Name: j.key.name, VM: j.vm, Path: j.path, Started: time.Now()})
	return err
}

// Restore takes up the recordings of an earlier process, which append to their
// files; find returns the machine with that number, or an error. Recordings of
// machines that have gone are completed. It returns how many go on; those that
// cannot are named in the error, and forgotten.
func (m *Manager) Restore(ctx context.Context, find func(id int) (Target, error)) (int, error) {
	entries, err := m.journal.Entries()
	failed := []error{err}
	count := 0
	for _, e := range entries {
		var s saved
		err := e.Read(&s)
		if err == nil {
			err = m.restore(ctx, &s, e, find)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s to %s does not go on: %w", s.Kind, s.Path, err), e.Remove())
			continue
		}
		count++
	}
	return count, errors.Join(failed...)
}

func (m *Manager) restore(ctx context.Context, s *saved, e *journal.Entry, find func(int) (Target, error)) error {
	old := &resumption{entry: e, started: s.Started}
	switch s.Kind {
	case TypeFB:
		if err := old.mendFB(s.Path); err != nil {
			return err
		}
	case TypeKB:
		if err := old.repairKB(s.Path); err != nil {
			return err
		}
	default:
		return errs.New(errs.Invalid, "%q is no kind of recording", s.Kind)
	}
	t, err := find(s.VM)
	if err != nil {
		return err
	}
	if t.Namespace != s.Namespace || t.Name != s.Name {
		return errs.New(errs.NotFound, "VM %d is another now", s.VM)
	}
	if s.Kind == TypeKB {
		return m.recordKB(ctx, t, s.Path, old)
	}
	return m.recordFB(ctx, t, s.Path, old)
}

// Forget drops what an earlier process left without taking it up, and returns a
// line for each recording. Their files stay.
func (m *Manager) Forget() ([]string, error) {
	return journal.Drop(m.journal, func(s saved) string {
		return strings.TrimPrefix(s.Kind, "record ") + " recording of VM " + s.Name + " to " + s.Path
	})
}

// resumption is how a recording goes on that an earlier process began. A nil
// one is a recording that begins.
type resumption struct {
	entry   *journal.Entry
	started time.Time
	last    time.Time     // of a kb recording: the last event
	offset  time.Duration // of an fb recording: the last update
}

// begin readies the file: empty, or to append to.
func (r *resumption) begin(out *output) error {
	if r == nil {
		return out.begin()
	}
	size, err := out.Seek(0, io.SeekEnd)
	out.job.bytes.Store(size)
	return err
}

// mendFB makes the file complete: with what was kept of it beside the journal's
// entry, or as far as it goes.
func (r *resumption) mendFB(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errs.New(errs.Invalid, "%s is not a plain file", path)
	}
	last, done, err := mend(f, r.entry.Beside())
	if r.offset = last; done {
		return nil
	}
	return errors.Join(err, r.repairFB(path))
}

// repairFB replaces the file by one that holds its whole chunks and is complete.
func (r *resumption) repairFB(path string) error {
	in, err := openOld(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	r.offset, err = vnc.RepairFB(in, out, fbUpdate)
	err = errors.Join(err, out.Chmod(0o644), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		_ = os.Remove(out.Name()) // the first error is the one to tell
	}
	return err
}

// repairKB takes a half written line off the file.
func (r *resumption) repairKB(path string) error {
	in, err := openOld(path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	r.last = info.ModTime()
	const most = 1 << 20 // a line of ours is much shorter
	from := max(0, info.Size()-most)
	tail, err := io.ReadAll(io.NewSectionReader(in, from, most))
	if err != nil {
		return err
	}
	return os.Truncate(path, from+int64(bytes.LastIndexByte(tail, '\n')+1))
}

func openOld(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errs.New(errs.Invalid, "%s is not a plain file", path), f.Close())
	}
	return f, nil
}
