package vm

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"minimega/internal/host"
)

// The instance directory holds, besides the engine's files, what a person or a
// later daemon needs to know the VM: name, state, config, taps, and vm.json.

// makeDir makes the instance directory and the link that leads to it by UUID,
// or leaves nothing.
func (v *VM) makeDir() error {
	if err := os.Mkdir(v.Dir(), 0o700); err != nil {
		return err
	}
	err := v.fillDir()
	if err != nil {
		err = errors.Join(err, v.removeDir())
	}
	return err
}

func (v *VM) fillDir() error {
	v.recording.Lock()
	v.records = 0
	v.recording.Unlock()
	if err := host.WriteFirst(filepath.Join(v.Dir(), "name"), []byte(v.Name), 0o600); err != nil {
		return err
	}
	if err := v.writeRecord(); err != nil {
		return err
	}
	return v.makeLink()
}

// makeLink makes the link that leads to the directory by UUID.
func (v *VM) makeLink() error {
	link := v.linkPath()
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		return err
	}
	err := os.Symlink(v.Dir(), link)
	if errors.Is(err, os.ErrExist) { // of a VM with this UUID that an earlier daemon had
		err = errors.Join(os.Remove(link), os.Symlink(v.Dir(), link))
	}
	return err
}

// removeDir removes what makeDir and the engine left.
func (v *VM) removeDir() error {
	err := os.Remove(v.linkPath())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, host.RemoveAll(v.goneDir()), host.RemoveAll(v.Dir()))
}

// retire renames the directory of a VM that is being flushed: from now on it
// is none, even if this process dies before all of it has gone.
func (v *VM) retire() error {
	err := os.Rename(v.Dir(), v.goneDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil // its launch had failed
	}
	return err
}

// unretire is the way back of retire.
func (v *VM) unretire() {
	if err := os.Rename(v.goneDir(), v.Dir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		v.log().Warn("the instance directory is lost", "err", err)
	}
}

func (v *VM) goneDir() string {
	return filepath.Join(v.manager.opts.Base, gonePrefix+strconv.Itoa(v.ID))
}

func (v *VM) linkPath() string {
	return filepath.Join(v.manager.opts.Base, "namespaces", v.Namespace, v.UUID)
}

func (v *VM) relaunched() bool { v.mu.Lock(); defer v.mu.Unlock(); return v.made }

// writeFile writes a small file of the instance directory, if there is one.
// What it says is also in memory, so a failure is logged and not returned.
func (v *VM) writeFile(name, content string) {
	if !v.relaunched() {
		return
	}
	if err := host.WriteFirst(filepath.Join(v.Dir(), name), []byte(content), 0o600); err != nil {
		v.log().Warn("writing the instance directory", "file", name, "err", err)
	}
}

func (v *VM) writeConfig() {
	c := v.Config()
	if v.relaunched() {
		if err := v.writeRecord(); err != nil {
			v.log().Warn("writing the instance directory", "file", recordName, "err", err)
		}
	}
	v.writeFile("config", strings.Join(Lines(c, v.Type), "\n")+"\n")
	var taps []string
	for _, n := range c.Networks {
		taps = append(taps, n.Tap)
	}
	if len(taps) > 0 {
		v.writeFile("taps", strings.Join(taps, "\n"))
	}
}
