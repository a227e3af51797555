package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// suiteTime bounds each call of the suite.
const suiteTime = 5 * time.Minute

// Suite runs the checks that every engine must pass. open makes a new engine,
// which it closes with the test, and the configuration of a small machine that
// the engine can launch.
func Suite(t *testing.T, open func(t *testing.T) (vm.Engine, *vm.Config)) {
	for name, check := range map[string]func(*suite){
		"Check":     (*suite).check,
		"Life":      (*suite).life,
		"End":       (*suite).end,
		"Close":     (*suite).letGo,
		"Adopt":     (*suite).adopt,
		"Cancelled": (*suite).cancelled,
		"Crowd":     (*suite).crowd,
	} {
		t.Run(name, func(t *testing.T) {
			s := &suite{T: t}
			s.engine, s.config = open(t)
			s.ctx, s.stop = context.WithTimeout(context.Background(), suiteTime)
			defer s.stop()
			check(s)
		})
	}
}

// suite is one check under way.
type suite struct {
	*testing.T
	engine vm.Engine
	config *vm.Config
	ctx    context.Context
	stop   context.CancelFunc
	made   int
}

// spec makes an instance directory with a short path: those of unix sockets
// are limited.
func (s *suite) spec() *vm.Spec {
	s.Helper()
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.made++
	return &vm.Spec{ID: s.made, Name: filepath.Base(dir), Dir: dir, Config: s.config.Clone(), Log: slog.New(slog.DiscardHandler)}
}

func (s *suite) launch() (*vm.Spec, vm.Machine) {
	s.Helper()
	spec := s.spec()
	m, err := s.engine.Launch(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), suiteTime)
		defer cancel()
		if err := m.Kill(ctx); err != nil && !errors.Is(err, errs.State) {
			s.Error(err)
		}
		if err := m.Close(); err != nil {
			s.Error(err)
		}
	})
	return spec, m
}

// check: what cannot work is refused, and nothing has changed.
func (s *suite) check() {
	before := s.config.Clone()
	if err := s.engine.Check(s.ctx, s.config); err != nil {
		s.Fatal(err)
	}
	bad := s.config.Clone()
	bad.Memory = 0
	if err := s.engine.Check(s.ctx, bad); !errors.Is(err, errs.Invalid) {
		s.Errorf("a machine without memory: %v, want an error of kind %q", err, errs.Invalid)
	}
	if !reflect.DeepEqual(s.config, before) {
		s.Errorf("the check changed the configuration: %+v\nbefore %+v", s.config, before)
	}
}

// life: paused at first, then run, stop and run on, killed at last.
func (s *suite) life() {
	spec, m := s.launch()
	s.wantState(m, vm.Building)
	for _, step := range []struct {
		do   func(context.Context) error
		want vm.State
	}{{m.Start, vm.Running}, {m.Stop, vm.Paused}, {m.Start, vm.Running}} {
		if err := step.do(s.ctx); err != nil {
			s.Fatal(err)
		}
		s.wantState(m, step.want)
	}
	if ended(m) {
		s.Error("Done is closed while it runs")
	}
	if err := m.Kill(s.ctx); err != nil {
		s.Fatal(err)
	}
	s.wantGone(spec, m)
	if err := m.Err(); err != nil {
		s.Errorf("killed, but Err is %v", err)
	}
	for name, err := range map[string]error{"Start": m.Start(s.ctx), "Stop": m.Stop(s.ctx)} {
		if !errors.Is(err, errs.State) {
			s.Errorf("%s after the end: %v, want an error of kind %q", name, err, errs.State)
		}
	}
	if err := m.Kill(s.ctx); err != nil && !errors.Is(err, errs.State) {
		s.Errorf("Kill after the end: %v", err)
	}
}

// wantState asks the machine itself.
func (s *suite) wantState(m vm.Machine, want vm.State) {
	s.Helper()
	asked, ok := m.(vm.Stater)
	if !ok {
		s.Errorf("a %T does not tell its state: make it a vm.Stater", m)
		return
	}
	if got, err := asked.Status(s.ctx); err != nil || got != want {
		s.Errorf("state %v, %v, want %v", got, err, want)
	}
}

// wantGone checks that Kill has waited.
func (s *suite) wantGone(spec *vm.Spec, m vm.Machine) {
	s.Helper()
	if !ended(m) {
		s.Error("Done is not closed after Kill")
	}
	if alive(m) {
		s.Errorf("process %d is still there after Kill", m.Pid())
	}
	if left := processes(spec.Dir); left != "" {
		s.Errorf("processes left: %s", left)
	}
}

func ended(m vm.Machine) bool {
	select {
	case <-m.Done():
		return true
	default:
		return false
	}
}

func alive(m vm.Machine) bool { return unix.Kill(m.Pid(), 0) == nil }

// processes tells those that mention a directory on their command line.
func processes(dir string) string {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	var found []string
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && bytes.Contains(b, []byte(dir+"/")) {
			found = append(found, p)
		}
	}
	return strings.Join(found, " ")
}

// end: a process that dies by itself is noticed, and is an error.
func (s *suite) end() {
	spec, m := s.launch()
	if !alive(m) {
		return // a machine in memory
	}
	if err := unix.Kill(m.Pid(), unix.SIGKILL); err != nil {
		s.Fatal(err)
	}
	select {
	case <-m.Done():
	case <-s.ctx.Done():
		s.Fatal("the end was not noticed")
	}
	s.wantGone(spec, m)
	if err := m.Err(); !errors.Is(err, errs.State) {
		s.Errorf("killed by somebody else, but Err is %v", err)
	}
	if err := m.Start(s.ctx); !errors.Is(err, errs.State) {
		s.Errorf("Start after the end: %v", err)
	}
}

// letGo: Close leaves the process alone.
func (s *suite) letGo() {
	m, err := s.engine.Launch(s.ctx, s.spec())
	if err != nil {
		s.Fatal(err)
	}
	process, pid := alive(m), m.Pid()
	if process {
		defer func() { // it stays our child
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}()
	}
	if err := m.Start(s.ctx); err != nil {
		s.Error(err)
	}
	if err := m.Close(); err != nil {
		s.Error(err)
	}
	if ended(m) || process && !alive(m) {
		s.Error("Close ended the machine")
	}
}

// adopt: what was let go of is taken over, as it is.
func (s *suite) adopt() {
	e, ok := s.engine.(vm.Adopter)
	if !ok {
		return
	}
	spec := s.spec()
	m, err := s.engine.Launch(s.ctx, spec)
	if err != nil {
		s.Fatal(err)
	}
	pid := m.Pid()
	defer func() { // it stays our child
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if dir := e.Instance(strings.Split(string(line), "\x00")); err != nil || dir != spec.Dir {
		s.Errorf("its directory is said to be %q, %v, want %s", dir, err, spec.Dir)
	}
	if dir := e.Instance([]string{"cat", spec.Dir + "/qmp", spec.Dir}); dir != "" {
		s.Errorf("another process is said to belong to %s", dir)
	}
	for _, step := range []struct {
		do   func(vm.Machine) error
		want vm.State
	}{
		{func(vm.Machine) error { return nil }, vm.Building},
		{func(m vm.Machine) error { return m.Start(s.ctx) }, vm.Running},
		{func(m vm.Machine) error { return m.Stop(s.ctx) }, vm.Paused},
	} {
		if err := errors.Join(step.do(m), m.Close()); err != nil {
			s.Fatal(err)
		}
		if _, err := e.Adopt(s.ctx, spec, os.Getpid()); !errors.Is(err, errs.NotFound) {
			s.Errorf("adopted another process: %v, want an error of kind %q", err, errs.NotFound)
		}
		if m, err = e.Adopt(s.ctx, spec, pid); err != nil {
			s.Fatal(err)
		}
		s.wantState(m, step.want)
	}
	if err := m.Kill(s.ctx); err != nil {
		s.Error(err)
	}
	if !ended(m) {
		s.Error("Done is not closed after Kill")
	}
	if err := errors.Join(m.Err(), m.Close()); err != nil {
		s.Error(err)
	}
}

// cancelled: a launch that is given up at any moment leaves nothing.
func (s *suite) cancelled() {
	for wait := time.Duration(0); wait < 200*time.Millisecond; wait = wait*2 + 2*time.Millisecond {
		spec := s.spec()
		ctx, cancel := context.WithTimeout(s.ctx, wait)
		m, err := s.engine.Launch(ctx, spec)
		cancel()
		if err == nil {
			if wait == 0 {
				s.Error("launched although nobody wanted it any more")
			}
			if err := errors.Join(m.Kill(s.ctx), m.Close()); err != nil {
				s.Error(err)
			}
			continue
		}
		if left, err := os.ReadDir(spec.Dir); err != nil || len(left) > 0 {
			s.Errorf("given up after %v: left %v, %v", wait, left, err)
		}
		if left := processes(spec.Dir); left != "" {
			s.Errorf("given up after %v: processes left: %s", wait, left)
		}
	}
}

// crowd: everything at once, from many sides.
func (s *suite) crowd() {
	const machines, callers = 3, 4
	var wg sync.WaitGroup
	for range machines {
		spec, m := s.launch()
		for range callers {
			wg.Go(func() {
				for !ended(m) {
					for _, err := range []error{m.Start(s.ctx), m.Stop(s.ctx)} {
						// Between Kill and Done it may be out of reach.
						if err != nil && !errors.Is(err, errs.State) && !errors.Is(err, errs.Unreachable) {
							s.Error(err)
							return
						}
					}
					_, _ = m.Pid(), m.Err()
				}
			})
		}
		wg.Go(func() {
			if err := m.Kill(s.ctx); err != nil {
				s.Error(err)
			}
			s.wantGone(spec, m)
		})
	}
	wg.Wait()
}
