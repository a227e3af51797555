package kvm

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
)

// saveNoteName is the file in the instance directory that says how the last
// save stands, for the next daemon.
const saveNoteName = "save"

// saveNote is what that file holds.
type saveNote struct {
	Stage string
	Files []unfinished `json:",omitempty"` // that are not complete, or not named yet
	// Why it failed.
	Kind   errs.Kind `json:",omitempty"`
	Text   string    `json:",omitempty"`
	Remedy string    `json:",omitempty"`
}

// The stages of a save.
const (
	saveBegun     = "begun"     // QEMU may have been asked for a part of it
	saveUnderWay  = "under way" // QEMU has been asked for the disks
	saveNaming    = "naming"    // QEMU is done with it
	saveCompleted = "completed"
	saveFailed    = "failed"
)

// note writes down at which stage the save is, and why it failed.
func (s *save) note(stage string, why error) error {
	n := saveNote{Stage: stage}
	switch stage {
	case saveCompleted:
	case saveFailed:
		n.fail(why)
	default:
		n.Files = s.files
	}
	return n.write(s.m.dir)
}

func (n *saveNote) fail(why error) {
	f := errs.FactsOf(why)
	text := strings.TrimSuffix(why.Error(), " ("+f.Remedy+")")
	*n = saveNote{Stage: saveFailed, Kind: f.Kind, Text: text, Remedy: f.Remedy}
}

func (n *saveNote) write(dir string) error {
	b, err := json.Marshal(n)
	if err == nil {
		err = host.WriteFile(filepath.Join(dir, saveNoteName), b, 0o600)
	}
	return err
}

// readSaveNote reads what write wrote; nil if there was no save.
func readSaveNote(dir string) (*saveNote, error) {
	path := filepath.Join(dir, saveNoteName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := new(saveNote)
	if err := json.Unmarshal(b, n); err != nil {
		return nil, errs.New(errs.Invalid, "%s is no note about a save: %w", path, err)
	}
	if _, ended := n.status(); !ended && len(n.Files) == 0 {
		return nil, errs.New(errs.Invalid, "%s names no files", path)
	}
	return n, nil
}

// status tells how a save ended, and false for one that has not.
func (n *saveNote) status() (vm.SaveStatus, bool) {
	switch n.Stage {
	case saveCompleted:
		return vm.SaveStatus{Status: vm.SaveCompleted, Percent: 100}, true
	case saveFailed:
		why := errs.New(n.Kind, "%s", n.Text)
		if n.Remedy != "" {
			why = errs.WithRemedy(why, n.Remedy)
		}
		return vm.SaveStatus{Status: vm.SaveFailed, Err: why}, true
	}
	return vm.SaveStatus{Status: vm.SaveActive}, false
}

// unnamed returns the files that do not have their names yet.
func (n *saveNote) unnamed() []unfinished {
	return slices.DeleteFunc(slices.Clone(n.Files), func(f unfinished) bool {
		_, err := os.Lstat(f.Temp)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// takeUpSave finds the last save of an adopted machine. What QEMU has been
// asked for it has done or does, and the save goes on; one that had only begun
// has failed.
func (m *Machine) takeUpSave() {
	n, err := readSaveNote(m.dir)
	if err != nil {
		m.log.Warn("what became of a save is not known", "vm", m.name, "err", err)
	}
	if n == nil {
		return
	}
	s := &save{m: m, log: m.log, files: n.Files, ram: m.memory, naming: n.Stage == saveNaming}
	now, ended := n.status()
	s.set(now)
	m.mu.Lock()
	m.save = s
	m.mu.Unlock()
	if ended {
		return
	}
	s.disks = make([]blockDevice, len(n.Files)-1)
	switch n.Stage {
	case saveNaming:
		s.files = n.unnamed()
		fallthrough
	case saveUnderWay:
		m.wg.Go(s.run)
	default:
		err := errors.Join(errBegun, s.cancel(), s.remove())
		m.log.Warn("a save that had just begun is lost", "vm", m.name, "err", err)
		s.end(err)
	}
}

var (
	errBegun = errs.New(errs.State, "minimega was killed when it had just begun")
	errGone  = errs.New(errs.State, "QEMU ended before it was complete, while no minimega ran")
)

// Clean ends the save of a QEMU that has gone: see vm.Cleaner.
func (e *Engine) Clean(_ context.Context, dir string) error {
	n, err := readSaveNote(dir)
	if n == nil {
		return err
	}
	if _, ended := n.status(); ended {
		return nil
	}
	s := &save{files: n.Files}
	if n.Stage == saveNaming {
		s.files = n.unnamed()
		if err = s.rename(); err == nil {
			return (&saveNote{Stage: saveCompleted}).write(dir)
		}
	} else {
		err = errors.Join(errGone, s.remove())
	}
	n.fail(err)
	return n.write(dir)
}

// Saved tells how the last save of a machine stands that has ended, see
// vm.SaveReader.
func (e *Engine) Saved(dir string) (vm.SaveStatus, bool) {
	n, _ := readSaveNote(dir)
	if n == nil {
		return vm.SaveStatus{}, false
	}
	return n.status()
}
