package kvm

import (
	"context"
	"crypto/rand"
	"encoding/json"
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
	"minimega/internal/host"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

// savingName is the file in the instance directory that lists the unfinished
// files of a save, so that the next daemon can remove them after a crash.
const savingName = "saving"

// save is one save of a machine. Disks are copied first, while the guest is
// paused, then QEMU migrates into a file; both are needed to go on.
type save struct {
	m     *Machine
	log   *slog.Logger
	disks []blockDevice
	files []unfinished // one for each disk, then the state
	ram   int64        // bytes, for the progress
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
		s.set(vm.SaveStatus{Status: vm.SaveFailed, Err: err})
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

// create makes the file for the state and notes all that will be unfinished.
func (s *save) create(context.Context) error {
	for _, f := range s.files {
		if err := os.MkdirAll(filepath.Dir(f.Final), 0o755); err != nil {
			return errs.Wrap(errs.Invalid, err)
		}
	}
	file, err := os.OpenFile(s.state().Temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return errs.Wrap(errs.Permission, err)
	}
	note, err := json.Marshal(s.files)
	if err == nil {
		err = host.WriteFile(filepath.Join(s.m.dir, savingName), note, 0o600)
	}
	if err = errors.Join(err, file.Close()); err != nil {
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
	return errors.Join(append(failed, removeFile(filepath.Join(s.m.dir, savingName)))...)
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

// run waits for the disks, then writes the state, then gives all files their
// names.
func (s *save) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with run
		select {
		case <-s.m.closed: // left to the next daemon
		case <-s.m.proc.Done():
		case <-ctx.Done():
		}
		cancel()
	}()
	err := s.disksCopied(ctx)
	if err == nil {
		err = errs.AtStep(s.migrate(ctx), "write the state")
	}
	if err == nil {
		err = errs.AtStep(s.rename(), "name the files")
	}
	if err == nil {
		s.set(vm.SaveStatus{Status: vm.SaveCompleted, Percent: 100})
		return
	}
	select {
	case <-s.m.closed:
		return
	default:
	}
	err = errors.Join(err, s.cancel(), s.remove())
	s.log.Error("the VM was not saved", "vm", s.m.name, "err", err)
	s.set(vm.SaveStatus{Status: vm.SaveFailed, Percent: s.read().Percent, Err: err})
}

// rename gives the files their names, disks first: whoever sees the state has
// its disks.
func (s *save) rename() error {
	for _, f := range s.files {
		if err := os.Rename(f.Temp, f.Final); err != nil {
			return err
		}
	}
	return removeFile(filepath.Join(s.m.dir, savingName))
}

// forgetSave removes what a save left that nobody watches any more. An adopted
// QEMU may still be at it.
func (m *Machine) forgetSave() {
	note := filepath.Join(m.dir, savingName)
	b, err := os.ReadFile(note)
	if err != nil {
		return // the usual case: there is none
	}
	s := &save{m: m, log: m.log}
	if err := json.Unmarshal(b, &s.files); err != nil {
		m.log.Warn("unreadable note about a save", "vm", m.name, "file", note, "err", err)
		return
	}
	s.disks = make([]blockDevice, max(0, len(s.files)-1))
	if err := errors.Join(s.cancel(), s.remove()); err != nil {
		m.log.Warn("a save that was under way is lost", "vm", m.name, "err", err)
		return
	}
	m.log.Warn("a save that was under way is lost: save the VM again", "vm", m.name)
}
