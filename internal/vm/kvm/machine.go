package kvm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/qmp"
	"minimega/internal/vm"
	"minimega/pkg/vnc"
)

// Machine is a QEMU process.
type Machine struct {
	dir   string
	name  string
	log   *slog.Logger
	disks []string // files that the guest's disks are written to, by index
	// memory of the guest in bytes
	memory int64
	xhci   bool // else EHCI
	ended  func(pid int)
	proc   *host.Proc
	qmp    *qmp.Client
	proxy  *vnc.Proxy

	done   chan struct{}
	closed chan struct{} // Close was called
	close  sync.Once
	wg     sync.WaitGroup
	shot   chan struct{} // one screenshot at a time: they share a file

	mu       sync.Mutex
	killed   bool
	shutdown bool // the guest or QEMU's owner asked for the end
	err      error
	save     *save // the last one, nil for none
	plugged  map[int]vm.HotplugDisk
}

var (
	_ vm.Engine        = (*Engine)(nil)
	_ vm.Adopter       = (*Engine)(nil)
	_ vm.Cleaner       = (*Engine)(nil)
	_ vm.SaveReader    = (*Engine)(nil)
	_ vm.Machine       = (*Machine)(nil)
	_ vm.Stater        = (*Machine)(nil)
	_ vm.QMPer         = (*Machine)(nil)
	_ vm.Screenshotter = (*Machine)(nil)
	_ vm.Displayer     = (*Machine)(nil)
	_ vm.Saver         = (*Machine)(nil)
	_ vm.Hotplugger    = (*Machine)(nil)
	_ vm.CDChanger     = (*Machine)(nil)
	_ vm.NetAdder      = (*Machine)(nil)
	_ vm.Threader      = (*Machine)(nil)
)

// How long a QEMU may take to end by itself, and by force.
const (
	quitTime  = 3 * time.Second
	forceTime = 5 * time.Second
)

func newMachine(l *launch) *Machine {
	m := &Machine{
		dir: l.spec.Dir, name: l.spec.Name, log: l.spec.Log, disks: diskFiles(l.spec.Config), memory: int64(l.spec.Config.Memory) << 20,
		xhci: l.spec.Config.UsbUseXHCI, proc: l.proc, qmp: l.qmp, proxy: l.proxy,
		done: make(chan struct{}), closed: make(chan struct{}), shot: make(chan struct{}, 1),
	}
	onEvent := func(qmp.Event) {}
	if l.e.opts.OnEvent != nil {
		onEvent = func(e qmp.Event) { l.e.opts.OnEvent(l.spec.ID, e) }
	}
	m.ended = l.e.opts.Ended
	l.e.opts.Started(m.Pid(), int(l.spec.Config.VCPUs))
	events := make(chan struct{})
	m.wg.Go(func() {
		defer close(events)
		m.events(onEvent)
	})
	m.wg.Go(func() { m.watch(events) })
	return m
}

// diskFiles lists what the disks of a configuration are written to.
func diskFiles(c *vm.Config) []string {
	files := make([]string, len(c.Disks))
	for i, d := range c.Disks {
		files[i] = cmp.Or(d.SnapshotPath, d.Path)
	}
	return files
}

// events follows what QEMU reports, until the connection ends.
func (m *Machine) events(on func(qmp.Event)) {
	for e := range m.qmp.Events() {
		if e.Name == "SHUTDOWN" {
			m.mu.Lock()
			m.shutdown = true
			m.mu.Unlock()
		}
		on(e)
	}
}

// watch lets go of everything when the process has ended.
func (m *Machine) watch(events <-chan struct{}) {
	select {
	case <-m.proc.Done():
	case <-m.closed:
		return
	}
	m.ended(m.Pid())
	_ = m.qmp.Close()
	<-events // so that a SHUTDOWN just before the end is known
	_ = m.proxy.Close()
	m.mu.Lock()
	m.err = m.verdict()
	m.mu.Unlock()
	close(m.done)
}

// verdict tells why the process ended.
func (m *Machine) verdict() error {
	status := m.proc.Status()
	if m.killed || status.OK() && (status.Known || m.shutdown) {
		return nil
	}
	return errs.New(errs.State, "QEMU ended: %s", describe(status, lastWords(filepath.Join(m.dir, logName))))
}

// Pid returns QEMU's process id.
func (m *Machine) Pid() int { return m.proc.Pid() }

// Done is closed when QEMU has ended and been waited for.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err tells why QEMU ended, see vm.Machine.
func (m *Machine) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// VNC returns the proxy in front of the screen.
func (m *Machine) VNC() *vnc.Proxy { return m.proxy }

// Start lets the guest run. During a save it must not: disks and memory would
// be of different moments.
func (m *Machine) Start(ctx context.Context) error {
	m.mu.Lock()
	err := m.savingLocked()
	m.mu.Unlock()
	if err != nil {
		return errs.InVM(err, m.name)
	}
	return m.execute(ctx, "cont", nil, nil)
}

// Stop pauses the guest.
func (m *Machine) Stop(ctx context.Context) error { return m.execute(ctx, "stop", nil, nil) }

func (m *Machine) execute(ctx context.Context, command string, args, out any) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.late(m.qmp.Execute(ctx, command, args, out))
}

// QMP sends a request as typed and returns QEMU's reply.
func (m *Machine) QMP(ctx context.Context, request json.RawMessage) (json.RawMessage, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	reply, err := m.qmp.Raw(ctx, request)
	return reply, m.late(err)
}

// alive fails when there is no process to talk to.
func (m *Machine) alive() error {
	select {
	case <-m.done:
		return errs.New(errs.State, "QEMU has ended")
	default:
		return nil
	}
}

// late words the failure of a call during which the process ended.
func (m *Machine) late(err error) error {
	if err == nil || !errors.Is(err, errs.Unreachable) {
		return err
	}
	select {
	case <-m.proc.Done():
		return errs.New(errs.State, "QEMU has ended: %w", err)
	default:
		return err
	}
}

// Kill asks QEMU to end, so that it closes its images, and makes it end if it
// does not.
func (m *Machine) Kill(ctx context.Context) error {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	if m.quit(ctx) {
		return nil
	}
	return m.proc.KillWithin(forceTime, m.done, m.closed)
}

// quit reports whether QEMU ended by itself in time.
func (m *Machine) quit(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, quitTime)
	defer cancel()
	// No matter what it answers: what counts is whether it ends.
	_ = m.qmp.Execute(ctx, "quit", nil, nil)
	select {
	case <-m.done:
		return true
	case <-ctx.Done():
	case <-m.closed:
	}
	return false
}

// Close lets go of the process without ending it.
func (m *Machine) Close() error {
	var err error
	m.close.Do(func() {
		close(m.closed)
		err = errors.Join(m.qmp.Close(), m.proxy.Close())
		m.wg.Wait()
		err = errors.Join(err, m.proc.Close())
	})
	return err
}
