// Package node is the built-in guest as a machine: what its first process
// does apart from talking to a person. It mounts, loads drivers, names and
// configures interfaces, serves HTTP, reaps, and switches the machine off.
//
// Everything here runs as PID 1 of a virtual machine, so nothing here may end
// the process: a part that fails says so in the kernel log and is tried again.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/cmdline"
)

// Machine is the running guest. Make one with Boot.
type Machine struct {
	Params cmdline.Params
	Net    *Net
	Procs  *Procs
	Log    *slog.Logger

	drivers *drivers
	power   chan powerState
	wg      sync.WaitGroup
}

// Boot brings the machine up: file systems, drivers, name, interfaces,
// services. What fails is logged; the machine comes up as far as it can. The
// parts that go on running end with ctx.
func Boot(ctx context.Context) *Machine {
	bad := mountAll()
	m := &Machine{Log: slog.New(newKmsgHandler()), Procs: newProcs(), power: make(chan powerState, 1)}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		bad = append(bad, err)
	}
	params, wrong := cmdline.Parse(string(line))
	m.Params = params
	bad = append(bad, wrong...)
	m.drivers, err = readDrivers()
	bad = append(bad, err)
	bad = append(bad, m.drivers.load(false)...)
	bad = append(bad, setHostname(params.Hostname))
	m.logAll(bad)
	m.Net = newNet(params, m.Log)
	m.start(ctx)
	return m
}

func (m *Machine) logAll(bad []error) {
	for _, err := range bad {
		if err != nil {
			m.Log.Warn(err.Error())
		}
	}
}

func (m *Machine) start(ctx context.Context) {
	if err := loopbackUp(); err != nil {
		m.Log.Warn(err.Error())
	}
	if err := nameInterfaces(); err != nil {
		m.Log.Warn(err.Error())
	}
	m.serve(ctx)
	m.Go(ctx, "drivers", m.watchDevices)
	m.Go(ctx, "ctrl-alt-del", m.watchCtrlAltDel)
	m.Go(ctx, "power button", m.watchButtons)
}

// serve starts what a container has too.
func (m *Machine) serve(ctx context.Context) {
	m.Go(ctx, "reaper", m.Procs.reap)
	m.Go(ctx, "network", m.Net.run)
	m.Go(ctx, "http", serveHTTP)
	if len(m.Params.Visit) > 0 {
		m.Go(ctx, "visit", m.visit)
	}
}

// Go runs fn until ctx ends, again after a pause whenever it returns or
// panics.
func (m *Machine) Go(ctx context.Context, name string, fn func(context.Context) error) {
	m.wg.Go(func() {
		for ctx.Err() == nil {
			if err := guard(ctx, fn); err != nil && ctx.Err() == nil {
				m.Log.Warn(name + ": " + err.Error())
			}
			pause(ctx, time.Second)
		}
	})
}

func guard(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn(ctx)
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func setHostname(name string) error {
	if name == "" {
		name = "guest"
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	return os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost "+name+"\n::1 localhost\n"), 0o644)
}
