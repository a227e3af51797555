package kvm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

// save is one save of a machine. Disks are copied first, while the guest is
// paused, then QEMU migrates into a file; both are needed to go on.
type save struct {
	m     *Machine
	log   *slog.Logger
	disks []blockDevice
	files []unfinished // one for each disk, then the state
	ram   int64        // bytes, for the progress
	// naming is set once QEMU has no more to do, and some files may have their
	// names; run's own.
	naming bool
	// copied is how many bytes the disks had; run's own.
	copied int64

	mu     sync.Mutex // guards the fields below
	status vm.SaveStatus
}

// unfinished is a file that has its name only once everything is complete.
type unfinished struct{ Temp, Final string }

func (s *save) job(i int) string      { return fmt.Sprintf("save-disk%d", i) }
func (s *save) state() unfinished     { return s.files[len(s.files)-1] }
func (s *save) read() vm.SaveStatus   { s.mu.Lock(); defer s.mu.Unlock(); return s.status }
func (s *save) set(now vm.SaveStatus) { s.mu.Lock(); s.status = now; s.mu.Unlock() }

// progress never shows 100 % before everything has its name.
func (s *save) progress(done, total int64) {
	percent := 0.0
	if total > 0 {
		percent = min(99.99, max(s.read().Percent, 100*float64(done)/float64(total)))
	}
	s.set(vm.SaveStatus{Status: vm.SaveActive, Percent: percent})
}

// Save begins to save the machine, see vm.Saver.
func (m *Machine) Save(ctx context.Context, to vm.SaveFiles) error {
	if err := m.alive(); err != nil {
		return err
	}
	s := &save{m: m, log: m.log, ram: m.memory, status: vm.SaveStatus{Status: vm.SaveActive}}
	if err := m.beginSave(s); err != nil {
		return err
	}
	if err := s.begin(ctx, to); err != nil {
		s.end(err)
		return err
	}
	m.wg.Go(s.run)
	return nil
}

// beginSave makes s the save of the machine, unless one is under way.
func (m *Machine) beginSave(s *save) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.savingLocked(); err != nil {
		return err
	}
	m.save = s
	return nil
}

// savingLocked refuses what cannot be done during a save. The caller holds mu.
func (m *Machine) savingLocked() error {
	if m.save == nil {
		return nil
	}
	if now := m.save.read(); now.Status == vm.SaveActive {
		return errs.WithRemedy(errs.New(errs.State, "it is being saved (%.0f %% done)", now.Percent),
			"wait until `vm save` shows it as completed")
	}
	return nil
}

// Saved tells how the last save stands.
func (m *Machine) Saved() (vm.SaveStatus, bool) {
	m.mu.Lock()
	s := m.save
	m.mu.Unlock()
	if s == nil {
		return vm.SaveStatus{}, false
	}
	return s.read(), true
}

// begin does all that can be refused: after it, QEMU copies the disks.
func (s *save) begin(ctx context.Context, to vm.SaveFiles) error {
	if err := s.m.unplugged(ctx); err != nil {
		return err
	}
	if err := s.find(ctx, to); err != nil {
		return err
	}
	return undo.Run(ctx,
		undo.Step{Name: "make the state file", Do: s.create, Undo: s.remove},
		undo.Step{Name: "pause", Do: s.pause},
		undo.Step{Name: "copy disks", Do: s.copyDisks, Undo: s.cancel},
		undo.Step{Name: "note the save", Do: func(context.Context) error { return s.note(saveUnderWay, nil) }},
	)
}

// unplugged refuses machines with devices that a restored one would not have.
func (m *Machine) unplugged(ctx context.Context) error {
	ids, err := m.peripherals(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if strings.HasPrefix(id, hotNetID) || strings.HasPrefix(id, hotDiskID) {
			return errs.WithRemedy(errs.New(errs.State, "it has devices that were plugged in while it ran (%s), which a restored VM would lack", id),
				"`vm hotplug remove` them; a VM with interfaces from `vm net add` must be launched anew to be saved")
		}
	}
	return nil
}

// find decides which disk goes to which file.
func (s *save) find(ctx context.Context, to vm.SaveFiles) error {
	all, err := s.m.blockDevices(ctx)
	if err != nil {
		return err
	}
	tag := rand.Text()[:8]
	add := func(final string) {
		s.files = append(s.files, unfinished{filepath.Join(filepath.Dir(final), "."+filepath.Base(final)+"."+tag), final})
	}
	for i, path := range s.m.disks {
		d, ok := deviceOf(all, path)
		if !ok {
			return errs.New(errs.State, "QEMU has no disk %s any more", path)
		}
		s.disks = append(s.disks, d)
		add(to.DiskPath(i))
	}
	add(to.State)
	return s.checkTargets()
}

// checkTargets refuses names that a machine depends on: to replace a file
// below its own overlay would ruin it.
func (s *save) checkTargets() error {
	seen := map[string]bool{}
	for _, f := range s.files {
		if seen[f.Final] {
			return errs.New(errs.Invalid, "state and disks cannot all go to one file, %s", f.Final)
		}
		seen[f.Final] = true
		st, err := os.Stat(f.Final)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return errs.New(errs.Invalid, "cannot save to %s: it is no regular file", f.Final)
		}
		used, err := disk.InUse(f.Final)
		if err != nil {
			return err
		}
		if used {
			return errs.WithRemedy(errs.New(errs.State, "%s is the disk of a running VM", f.Final), "save under another name")
		}
	}
	return nil
}

// create notes all that will be unfinished, and makes the file for the state.
func (s *save) create(context.Context) error {
	for _, f := range s.files {
		if err := os.MkdirAll(filepath.Dir(f.Final), 0o755); err != nil {
			return errs.Wrap(errs.Invalid, err)
		}
	}
	if err := s.note(saveBegun, nil); err != nil {
		return err
	}
	file, err := os.OpenFile(s.state().Temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errs.Wrap(errs.Permission, err)
	}
	if err := file.Close(); err != nil {
		return errors.Join(err, s.remove())
	}
	return nil
}

// remove takes away what is unfinished.
func (s *save) remove() error {
	var failed []error
	for _, f := range s.files {
		failed = append(failed, removeFile(f.Temp))
	}
	return errors.Join(failed...)
}

// pause stops the guest, and wakes the block devices of one that was saved
// before: QEMU has let go of them and does not move the same state twice. The
// guest may run for an instant in that case.
func (s *save) pause(ctx context.Context) error {
	var now struct{ Status string }
	if err := s.m.execute(ctx, "query-status", nil, &now); err != nil {
		return err
	}
	if now.Status == "postmigrate" {
		if err := s.m.execute(ctx, "cont", nil, nil); err != nil {
			return err
		}
	}
	return s.m.execute(ctx, "stop", nil, nil)
}

// copyDisks starts a job for each disk. Since the guest is paused, all copies
// are of the same moment.
func (s *save) copyDisks(ctx context.Context) error {
	for i, d := range s.disks {
		mode, err := s.createTarget(ctx, s.m.disks[i], s.files[i].Temp)
		if err == nil {
			err = s.m.execute(ctx, "drive-backup", map[string]any{"job-id": s.job(i), "device": d.Device, "target": s.files[i].Temp,
				"format": d.Inserted.Format, "sync": "top", "mode": mode, "auto-dismiss": false}, nil)
		}
		if err != nil {
			return errors.Join(err, s.cancel())
		}
	}
	return nil
}

// createTarget makes the image that an overlay is copied to, since QEMU would
// name its backing file by a path through the instance directory, which goes
// with the VM. Other images QEMU makes best itself.
func (s *save) createTarget(ctx context.Context, source, target string) (mode string, err error) {
	if filepath.Dir(source) != s.m.dir {
		return "absolute-paths", nil
	}
	h, err := disk.Inspect(source)
	if err != nil {
		return "", err
	}
	return "existing", disk.Snapshot(ctx, h.Backing, target, true)
}

// run sees the save to its end.
func (s *save) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with run
		select {
		case <-s.m.closed:
		case <-s.m.proc.Done():
		case <-ctx.Done():
		}
		cancel()
	}()
	err := s.finish(ctx)
	if err != nil && s.m.left() {
		return // QEMU goes on, and the next daemon takes the save up
	}
	if err != nil {
		err = errors.Join(err, s.cancel(), s.remove())
		s.log.Error("the VM was not saved", "vm", s.m.name, "err", err)
	}
	s.end(err)
}

// finish waits for the disks, then writes the state, then gives all files their
// names. All that it needs to know it asks QEMU, so that it can go on where an
// earlier daemon was.
func (s *save) finish(ctx context.Context) error {
	if !s.naming {
		if err := s.disksCopied(ctx); err != nil {
			return err
		}
		if err := s.migrate(ctx); err != nil {
			return errs.AtStep(err, "write the state")
		}
		if err := s.note(saveNaming, nil); err != nil {
			return err
		}
		s.naming = true
	}
	if err := s.rename(); err != nil {
		return errs.AtStep(err, "name the files")
	}
	err := s.dismiss(ctx)
	if err != nil && !s.m.left() { // it is whole all the same
		s.log.Warn("QEMU keeps what it knows of a save", "vm", s.m.name, "err", err)
		err = nil
	}
	return err
}

// left reports whether this side lets go of a QEMU that runs on.
func (m *Machine) left() bool {
	select {
	case <-m.proc.Done():
		return false
	default:
	}
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// rename gives the files their names, disks first: whoever sees the state has
// its disks.
func (s *save) rename() error {
	for _, f := range s.files {
		err := os.Rename(f.Temp, f.Final)
		if errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.NotFound, "what was to become %s has been removed while it was written", f.Final)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// end tells how the save ended: first the next daemon, then whoever asks.
func (s *save) end(err error) {
	now, stage := vm.SaveStatus{Status: vm.SaveCompleted, Percent: 100}, saveCompleted
	if err != nil {
		now, stage = vm.SaveStatus{Status: vm.SaveFailed, Percent: s.read().Percent, Err: err}, saveFailed
	}
	if err := s.note(stage, err); err != nil {
		s.log.Warn("noting how a save ended", "vm", s.m.name, "err", err)
	}
	s.set(now)
}
