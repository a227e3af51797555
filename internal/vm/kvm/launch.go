package kvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/qmp"
	"minimega/internal/undo"
	"minimega/internal/vm"
	"minimega/pkg/vnc"
)

const (
	logName   = "qemu.log"
	loadStep  = "load the saved state"
	wordsTail = 4 << 10 // of the log, for errors
	undoTime  = 10 * time.Second
	pollFirst = time.Millisecond
	pollLast  = 10 * time.Millisecond
)

// launch is one machine in the making.
type launch struct {
	e    *Engine
	spec *vm.Spec

	overlays []string
	proc     *host.Proc
	qmp      *qmp.Client
	proxy    *vnc.Proxy
}

// Launch makes a machine that waits at its first instruction.
func (e *Engine) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	whole := ctx // a saved state takes as long as it takes
	ctx, cancel := context.WithTimeout(ctx, e.opts.StartTimeout)
	defer cancel()
	l := &launch{e: e, spec: s}
	err := undo.Run(ctx,
		undo.Step{Name: "create disk overlays", Do: l.createOverlays, Undo: l.removeOverlays},
		undo.Step{Name: "start QEMU", Do: l.start, Undo: l.end},
		undo.Step{Name: "connect to QMP", Do: l.connect, Undo: func() error { return l.qmp.Close() }},
		undo.Step{Name: "open VNC", Do: l.display, Undo: func() error { return l.proxy.Close() }},
		undo.Step{Name: loadStep, Do: func(context.Context) error { return l.load(whole) }},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	if err := removeFile(l.path(saveNoteName)); err != nil { // of the machine that was here before
		s.Log.Warn("an old note about a save stays", "vm", s.Name, "err", err)
	}
	return newMachine(l), nil
}

// load waits until QEMU has read the saved state, if the machine starts from
// one. A QEMU that cannot use it ends.
func (l *launch) load(ctx context.Context) error {
	if l.spec.Config.MigratePath == "" {
		return nil
	}
	for wait := pollFirst; ; wait = min(wait*3/2, pollLast) {
		var now struct{ Status string }
		err := l.qmp.Execute(ctx, "query-status", nil, &now)
		if err != nil {
			return l.unloaded(ctx, err)
		}
		if now.Status != "inmigrate" {
			return nil
		}
		if err := pause(ctx, wait, l.proc.Done()); err != nil {
			return l.silent(err)
		}
	}
}

// unloaded words why QEMU did not take the state: it ends then.
func (l *launch) unloaded(ctx context.Context, err error) error {
	grace, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	select {
	case <-l.proc.Done():
	case <-grace.Done():
		return err
	}
	return l.unloadable(l.words())
}

func (l *launch) unloadable(words string) error {
	return errs.WithRemedy(errs.New(errs.State, "QEMU ended: %s", describe(l.proc.Status(), words)),
		"a state needs the configuration and the QEMU that it was saved with")
}

func (l *launch) path(name string) string { return filepath.Join(l.spec.Dir, name) }

func (l *launch) overlay(i int) string { return l.path(fmt.Sprintf("disk-%d.qcow2", i)) }

// createOverlays gives each disk an overlay, if the VM shall not change it.
// One left by an earlier run in the same directory is replaced: a snapshot
// begins anew with each launch.
func (l *launch) createOverlays(ctx context.Context) (err error) {
	if !l.spec.Config.Snapshot {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.removeOverlays())
		}
	}()
	for i := range l.spec.Config.Disks {
		d := &l.spec.Config.Disks[i]
		d.SnapshotPath = l.overlay(i)
		if err := removeFile(d.SnapshotPath); err != nil {
			return err
		}
		if err := disk.Snapshot(ctx, d.Path, d.SnapshotPath, l.e.opts.AbsSnapshot); err != nil {
			return err
		}
		l.overlays = append(l.overlays, d.SnapshotPath)
	}
	return nil
}

func (l *launch) removeOverlays() error {
	var failed []error
	for _, path := range l.overlays {
		failed = append(failed, removeFile(path))
	}
	for i := range l.spec.Config.Disks {
		l.spec.Config.Disks[i].SnapshotPath = ""
	}
	return errors.Join(failed...)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// start runs QEMU. What it prints goes to a file: it must be able to print
// when nobody is there to read.
func (l *launch) start(ctx context.Context) error {
	a := l.e.accel(ctx)
	path, err := program(l.spec.Config.QemuPath, a)
	if err != nil {
		return err
	}
	list, err := l.e.arguments(ctx, l.spec.ID, l.spec.Dir, l.spec.Config, a)
	if err != nil {
		return err
	}
	list = override(list, l.spec.Config.QemuOverride)
	if err := l.removeSockets(); err != nil { // of an earlier run
		return err
	}
	log, err := os.OpenFile(l.path(logName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	l.spec.Log.Debug("start QEMU", "vm", l.spec.Name, "command", path+" "+Join(list))
	if l.proc, err = host.StartProc(host.ProcSpec{Path: path, Args: list, Output: log}); err != nil {
		return errors.Join(err, removeFile(l.path(logName)))
	}
	return nil
}

// end takes back start.
func (l *launch) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	return errors.Join(l.proc.Kill(ctx), l.proc.Close(), l.removeSockets(), removeFile(l.path(logName)))
}

// removeSockets removes what QEMU makes in the instance directory.
func (l *launch) removeSockets() error {
	names := []string{"qmp", "vnc", "cc", "qemu.pid"}
	for i := range l.spec.Config.SerialPorts {
		names = append(names, fmt.Sprintf("serial%d", i))
	}
	ports, err := portNames(l.spec.Config.VirtioPorts)
	if err != nil {
		return err
	}
	for i := range ports {
		names = append(names, fmt.Sprintf("virtio-serial%d", i))
	}
	var failed []error
	for _, name := range names {
		failed = append(failed, removeFile(l.path(name)))
	}
	return errors.Join(failed...)
}

// connect waits until QEMU answers, or has ended. QEMU itself waits for us
// before it makes the machine, so the answer comes when all is made.
func (l *launch) connect(ctx context.Context) error {
	// Many start at once, each in about 0.1 s: a long last wait would be felt.
	for wait := pollFirst; ; wait = min(wait*9/8, pollLast) {
		client, err := qmp.Dial(ctx, l.path("qmp"))
		if err == nil {
			l.qmp = client
			return nil
		}
		if ended := l.ended(ctx, err); ended != nil {
			return ended
		}
		if err := pause(ctx, wait, l.proc.Done()); err != nil {
			return l.silent(err)
		}
	}
}

// pause waits a moment, less if done is closed, and fails when ctx ends.
func pause(ctx context.Context, d time.Duration, done <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// ended tells whether a failed attempt to connect is final, and words it.
func (l *launch) ended(ctx context.Context, err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		select {
		case <-l.proc.Done():
		default:
			return nil // not yet
		}
	}
	if ctx.Err() != nil {
		return l.silent(ctx.Err())
	}
	// A QEMU that fails closes its socket first: give it the time to end.
	grace, cancel := context.WithTimeout(ctx, undoTime)
	defer cancel()
	select {
	case <-l.proc.Done():
		words := l.words()
		if l.spec.Config.MigratePath != "" && strings.Contains(words, "migration") {
			return errs.AtStep(l.unloadable(words), loadStep)
		}
		return errs.AtStep(errs.New(errs.State, "QEMU ended: %s", describe(l.proc.Status(), words)), "start QEMU")
	case <-grace.Done():
		if ctx.Err() != nil {
			return l.silent(ctx.Err())
		}
		return err
	}
}

// silent words a QEMU that runs but does not answer.
func (l *launch) silent(err error) error {
	if words := l.words(); words != "" {
		return errs.New(errs.Unreachable, "QEMU does not answer: %w; it says: %s", err, words)
	}
	return errs.New(errs.Unreachable, "QEMU does not answer: %w", err)
}

func (l *launch) words() string { return lastWords(l.path(logName)) }

// lastWords returns the end of what QEMU printed, on one line.
func lastWords(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-wordsTail), wordsTail))
	if err != nil {
		return ""
	}
	return clean(string(b))
}

// display opens the port for VNC clients; QEMU's own socket is dialled anew
// for each of them.
func (l *launch) display(context.Context) error {
	ln, err := l.listen()
	if err != nil {
		return err
	}
	sock := l.path("vnc")
	dial := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", sock)
	}
	l.proxy = vnc.NewProxy(ln, dial, l.spec.Log, vnc.TypeCutText(!l.spec.Config.BidirectionalCopyPaste))
	return nil
}

// listen takes the port that the screen had before, if it is free.
func (l *launch) listen() (net.Listener, error) {
	if l.spec.VNCPort != 0 {
		ln, err := net.Listen("tcp", net.JoinHostPort(l.e.opts.VNCListen, strconv.Itoa(l.spec.VNCPort)))
		if err == nil {
			return ln, nil
		}
		l.spec.Log.Warn("the screen's old port is taken, it gets another", "vm", l.spec.Name, "err", err)
	}
	return net.Listen("tcp", net.JoinHostPort(l.e.opts.VNCListen, "0"))
}
