package kvm

import (
	"bytes"
	"context"
	"fmt"
	"os"

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
	m.forgetSave()
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

// nameOverlays fills in where the disks of an adopted machine are written.
func (l *launch) nameOverlays() {
	if !l.spec.Config.Snapshot {
		return
	}
	for i := range l.spec.Config.Disks {
		l.spec.Config.Disks[i].SnapshotPath = l.overlay(i)
	}
}
