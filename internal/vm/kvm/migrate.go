package kvm

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/qmp"
)

// How often the progress of a save is asked for.
const (
	askFirst = 2 * time.Millisecond
	askLast  = 100 * time.Millisecond
)

// stateFD is the name under which QEMU knows the file for the state.
const stateFD = "minimega-state"

// jobInfo is an element of query-jobs (QEMU's qapi/job.json).
type jobInfo struct {
	ID       string `json:"id"`
	Status   string `json:"status"`
	Current  int64  `json:"current-progress"`
	Total    int64  `json:"total-progress"`
	ErrorMsg string `json:"error"`
}

// disksCopied waits for the copies of the disks. Their jobs stay until all is
// done: they tell the next daemon that there is nothing to wait for.
func (s *save) disksCopied(ctx context.Context) error {
	for wait := askFirst; len(s.disks) > 0; wait = min(wait*3/2, askLast) {
		jobs, err := s.jobs(ctx)
		if err != nil {
			return err
		}
		if len(jobs) < len(s.disks) {
			return errs.AtStep(errs.New(errs.State, "QEMU has given up a copy"), "copy disks")
		}
		done, total, running := int64(0), s.ram, 0
		for _, j := range jobs {
			done, total = done+j.Current, total+j.Total
			if j.Status != "concluded" {
				running++
				continue
			}
			if j.ErrorMsg != "" {
				return copyError(j.ErrorMsg)
			}
		}
		if running == 0 {
			s.copied = done
			return nil
		}
		s.progress(done, total)
		if err := pause(ctx, wait, nil); err != nil {
			return err
		}
	}
	return nil
}

func copyError(words string) error {
	kind := errs.State
	if strings.Contains(words, "No space left") {
		kind = errs.Resource
	}
	return errs.AtStep(errs.New(kind, "QEMU: %s", clean(words)), "copy disks")
}

// jobs returns those of this save.
func (s *save) jobs(ctx context.Context) ([]jobInfo, error) {
	var all, ours []jobInfo
	if err := s.m.execute(ctx, "query-jobs", nil, &all); err != nil {
		return nil, err
	}
	for i := range s.disks {
		for _, j := range all {
			if j.ID == s.job(i) {
				ours = append(ours, j)
			}
		}
	}
	return ours, nil
}

// dismiss has QEMU forget the copies.
func (s *save) dismiss(ctx context.Context) error {
	jobs, err := s.jobs(ctx)
	failed := []error{err}
	for _, j := range jobs {
		failed = append(failed, s.m.execute(ctx, "job-dismiss", map[string]any{"id": j.ID}, nil))
	}
	return errors.Join(failed...)
}

// cancel ends what a failed save left running in QEMU.
func (s *save) cancel() error {
	select {
	case <-s.m.proc.Done():
		return nil // nothing runs any more
	default:
	}
	ctx, stop := context.WithTimeout(context.Background(), undoTime)
	defer stop()
	_ = s.m.qmp.Execute(ctx, "migrate_cancel", nil, nil) // says nothing of use when there is none
	for wait := askFirst; ; wait = min(wait*3/2, askLast) {
		jobs, err := s.jobs(ctx)
		if err != nil || len(jobs) == 0 {
			return err
		}
		for _, j := range jobs {
			command := "job-cancel"
			if j.Status == "concluded" {
				command = "job-dismiss"
			}
			// A job may move on between question and order: the next turn sees it.
			_ = s.m.qmp.Execute(ctx, command, map[string]any{"id": j.ID}, nil)
		}
		if err := pause(ctx, wait, nil); err != nil {
			return err
		}
	}
}

// migration is the reply of query-migrate (QEMU's qapi/migration.json).
type migration struct {
	Status string `json:"status"`
	Desc   string `json:"error-desc"`
	RAM    *struct {
		Total     int64 `json:"total"`
		Remaining int64 `json:"remaining"`
	} `json:"ram"`
}

// migrate writes memory and devices, or waits for a QEMU that is at it already.
func (s *save) migrate(ctx context.Context) error {
	if begun, err := s.migrating(ctx); err != nil {
		return err
	} else if !begun {
		if err := s.beginMigrate(ctx); err != nil {
			return err
		}
	}
	for wait := askFirst; ; wait = min(wait*3/2, askLast) {
		var now migration
		if err := s.m.execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return s.migrateError(now)
		}
		if now.RAM != nil {
			s.progress(s.copied+now.RAM.Total-now.RAM.Remaining, s.copied+max(s.ram, now.RAM.Total))
		}
		if err := pause(ctx, wait, nil); err != nil {
			return err
		}
	}
}

// migrateError words a failure. QEMU tells little, so the most likely cause is
// looked for.
func (s *save) migrateError(now migration) error {
	if now.Desc != "" {
		return errs.New(errs.State, "QEMU: %s", clean(now.Desc))
	}
	if free := freeSpace(s.state().Temp); free >= 0 && free < 1<<20 {
		return errs.WithRemedy(errs.New(errs.Resource, "no space left for %s", s.state().Final), "free some space and save again")
	}
	return errs.New(errs.State, "QEMU gave up writing %s: %s", s.state().Final, now.Status)
}

// migrating reports whether an earlier daemon had QEMU begin with the state. A
// migration for an earlier save does not count: pause has left the run state
// that its end leads to, and that is asked for last, because the end may be now.
func (s *save) migrating(ctx context.Context) (bool, error) {
	var now migration
	if err := s.m.execute(ctx, "query-migrate", nil, &now); err != nil {
		return false, err
	}
	var guest struct {
		Running bool   `json:"running"`
		Status  string `json:"status"`
	}
	if err := s.m.execute(ctx, "query-status", nil, &guest); err != nil {
		return false, err
	}
	if guest.Running {
		return false, errs.New(errs.State, "its guest went on running: memory and disks would be of different moments")
	}
	begun := []string{"setup", "active", "device"}
	return slices.Contains(begun, now.Status) || guest.Status == "finish-migrate" || guest.Status == "postmigrate", nil
}

// beginMigrate has QEMU begin with the state. It gets the open file and no
// name: what it does with names differs between versions, and some go through a shell.
func (s *save) beginMigrate(ctx context.Context) error {
	// The default limit is for networks that others use too.
	if err := s.m.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(1) << 50}, nil); err != nil {
		return err
	}
	f, err := os.OpenFile(s.state().Temp, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.m.qmp.ExecuteWith(ctx, f, "getfd", map[string]any{"fdname": stateFD}, nil); err != nil {
		return s.m.late(err)
	}
	err = s.m.execute(ctx, "migrate", map[string]any{"uri": "fd:" + stateFD}, nil)
	var refused *qmp.Error
	if !errors.As(err, &refused) {
		return err
	}
	// A QEMU that takes no plain file this way knows one by name (8.2 and newer).
	_ = s.m.qmp.Execute(ctx, "closefd", map[string]any{"fdname": stateFD}, nil)
	if byName := s.m.execute(ctx, "migrate", map[string]any{"uri": "file:" + s.state().Temp}, nil); byName != nil {
		return err
	}
	return nil
}
