package kvm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/qmp"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

// Adopt takes over a QEMU that an earlier process launched in s.Dir and let go
// of, or died. It fails with errs.NotFound if pid is not that QEMU. A failed
// Adopt leaves the QEMU as it was.
func (e *Engine) Adopt(ctx context.Context, s *vm.Spec, pid int) (vm.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.StartTimeout)
	defer cancel()
	l := &launch{e: e, spec: s}
	err := undo.Run(ctx,
		undo.Step{Name: "find QEMU", Do: func(context.Context) error { return l.find(pid) }, Undo: func() error { return l.proc.Close() }},
		undo.Step{Name: "connect to QMP", Do: l.reconnect, Undo: func() error { return l.qmp.Close() }},
		undo.Step{Name: "open VNC", Do: l.display, Undo: func() error { return l.proxy.Close() }},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	l.nameOverlays()
	m := newMachine(l)
	m.takeUpSave()
	m.readPlugged(ctx)
	// QEMU changes the CD before the record says so, and the guest may eject it.
	if cd, ok, err := m.cdInDrive(ctx); err == nil && ok {
		s.Config.CdromPath = cd
	}
	return m, nil
}

// find makes sure that pid is the QEMU of this directory, which its command
// line tells. The watch comes first: after it the pid cannot be reused unseen.
func (l *launch) find(pid int) error {
	proc, err := host.AdoptProc(pid)
	if err != nil {
		return errs.Wrap(errs.NotFound, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte("unix:"+opt(l.path("qmp"))+",")) {
		_ = proc.Close()
		return errs.New(errs.NotFound, "process %d is not the QEMU of %s", pid, l.spec.Dir)
	}
	l.proc = proc
	return nil
}

func (l *launch) reconnect(ctx context.Context) (err error) {
	l.qmp, err = qmp.Dial(ctx, l.path("qmp"))
	return err
}

// Instance returns the directory of the control socket on a QEMU's command line.
func (e *Engine) Instance(args []string) string {
	for i := 1; i < len(args); i++ {
		rest, ok := strings.CutPrefix(args[i], "unix:")
		if !ok || args[i-1] != "-qmp" {
			continue
		}
		if at := strings.LastIndex(rest, "/qmp,"); at > 0 {
			return strings.ReplaceAll(rest[:at], ",,", ",") // see opt
		}
	}
	return ""
}

// Remains tells why the QEMU of a directory ended, from what it printed.
func (e *Engine) Remains(dir string) error {
	words := lastWords(filepath.Join(dir, logName))
	if words == "" || strings.Contains(words, "terminating on signal") {
		return nil
	}
	last := words[strings.LastIndex(words, "; ")+1:]
	if strings.Contains(last, "warning:") || strings.Contains(last, "info:") {
		return nil
	}
	return errs.New(errs.State, "QEMU ended while no minimega ran: %s", words)
}

// Words returns the last of what the QEMU of a directory printed.
func (e *Engine) Words(dir string) string { return lastWords(filepath.Join(dir, logName)) }

// Status asks QEMU whether the guest runs.
func (m *Machine) Status(ctx context.Context) (vm.State, error) {
	var s struct {
		Running bool   `json:"running"`
		Status  string `json:"status"`
	}
	if err := m.execute(ctx, "query-status", nil, &s); err != nil {
		return 0, err
	}
	switch {
	case s.Running:
		return vm.Running, nil
	case s.Status == "prelaunch" || s.Status == "inmigrate":
		return vm.Building, nil
	}
	return vm.Paused, nil
}

// nameOverlays fills in where the disks of an adopted machine are written.
func (l *launch) nameOverlays() {
	if !l.spec.Config.Snapshot {
		return
	}
	for i := range l.spec.Config.Disks {
		l.spec.Config.Disks[i].SnapshotPath = l.overlay(i)
	}
}
