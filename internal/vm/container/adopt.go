package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

var (
	_ vm.Adopter = (*Engine)(nil)
	_ vm.Cleaner = (*Engine)(nil)
)

// Instance returns the directory on the command line of a keeper.
func (e *Engine) Instance(args []string) string {
	if len(args) != 3 || args[0] != keeperPath || args[1] != keeperWord {
		return ""
	}
	return args[2]
}

// Adopt takes over the container of a keeper that an earlier daemon started.
// A failed Adopt leaves it as it was.
func (e *Engine) Adopt(ctx context.Context, s *vm.Spec, pid int) (vm.Machine, error) {
	l := &launch{e: e, spec: s, pty: &terminal{}}
	if e.broken != nil {
		return nil, e.broken
	}
	l.group = e.groups.Group(groupName(s.Dir))
	err := undo.Run(ctx,
		undo.Step{Name: "find keeper", Do: func(context.Context) error { return l.findKeeper(pid) }, Undo: func() error { return l.keeper.Close() }},
		undo.Step{Name: "find init", Do: l.findInit, Undo: func() error { return l.init.close() }},
		undo.Step{Name: "borrow terminal", Do: func(context.Context) error { return l.borrow(pid) },
			Undo: func() error { return errors.Join(l.pty.Close(), l.start.Close()) }},
		undo.Step{Name: "open console", Do: l.openConsole, Undo: func() error { return l.console.Close() }},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	m := newMachine(l)
	if state, err := m.Status(ctx); err == nil && state != vm.Building {
		m.start = nil
		return m, l.start.Close()
	}
	return m, nil
}

// findKeeper makes sure that pid is the keeper of this directory. The watch
// comes first: after it the pid cannot be reused unseen.
func (l *launch) findKeeper(pid int) error {
	keeper, err := host.AdoptProc(pid)
	if err != nil {
		return errs.Wrap(errs.NotFound, err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || l.e.Instance(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")) != l.spec.Dir {
		return errors.Join(errs.New(errs.NotFound, "process %d is not the keeper of %s", pid, l.spec.Dir), keeper.Close())
	}
	l.keeper = keeper
	return nil
}

// findInit finds the one child of the keeper.
func (l *launch) findInit(context.Context) error {
	pid := l.keeper.Pid()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return errs.New(errs.NotFound, "the container's init: %w", err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return errs.New(errs.NotFound, "keeper %d has not one child but %q", pid, text)
	}
	l.init, err = openProcess(child)
	return err
}

// borrow gets back what the keeper has held.
func (l *launch) borrow(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if l.pty.master, err = borrow(fd, fdTerminal, "terminal"); err != nil {
		return err
	}
	if l.start, err = borrow(fd, fdStart, "eventfd"); err != nil {
		return errors.Join(err, l.pty.Close())
	}
	return nil
}

// Remains tells how a container ended that nobody watched.
func (e *Engine) Remains(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, statusName)); err != nil {
		return nil
	}
	return verdict(dir)
}

// Clean ends what is left of the container of an instance directory that is to
// go, and removes its control group.
func (e *Engine) Clean(ctx context.Context, dir string) error {
	if e.groups == nil {
		return nil
	}
	g := e.groups.Group(groupName(dir))
	return errors.Join(g.Kill(ctx), g.Remove(ctx))
}
