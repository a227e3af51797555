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
		undo.Step{Name: "find keeper", Do: func(context.Context) error { return l.findKeeper(pid) }, Undo: func() error { return l.keeper.close() }},
		undo.Step{Name: "find init", Do: l.findInit, Undo: func() error { return l.init.close() }},
		undo.Step{Name: "end what was killed", Do: l.finishKill},
		undo.Step{Name: "borrow terminal", Do: func(context.Context) error { return l.borrow(l.keeper.pid) },
			Undo: func() error { return errors.Join(l.pty.Close(), l.start.Close()) }},
		undo.Step{Name: "open console", Do: l.openConsole, Undo: func() error { return l.console.Close() }},
		undo.Step{Name: "serve backchannel", Do: l.serveBackchannel},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	m := newMachine(l)
	m.frozen = true // nobody else has it yet
	if state, err := m.Status(ctx); err == nil && state != vm.Building {
		m.start = nil
		return m, l.start.Close()
	}
	return m, nil
}

// findKeeper finds the keeper of this directory, which is pid or, until init has
// been executed and as long as it has the keeper's command line, its parent.
// The watch comes first: after it the pid cannot be reused unseen.
func (l *launch) findKeeper(pid int) error {
	for range 2 {
		keeper, err := adoptKeeper(l.e.poller, pid)
		if err != nil {
			return err
		}
		parent, ours := l.relation(pid)
		if ours && parent == 0 {
			l.keeper = keeper
			return nil
		}
		if err := keeper.close(); err != nil || !ours {
			return errors.Join(errs.New(errs.NotFound, "process %d is not the keeper of %s", pid, l.spec.Dir), err)
		}
		pid = parent
	}
	return errs.New(errs.NotFound, "%s has no keeper", l.spec.Dir)
}

// relation tells whether a process has the command line of this directory's
// keeper, and which parent of it has the same, 0 if none.
func (l *launch) relation(pid int) (parent int, ours bool) {
	args := func(pid int) []string {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	}
	if l.e.Instance(args(pid)) != l.spec.Dir {
		return 0, false
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	parent, err = strconv.Atoi(field(text, "PPid"))
	if err != nil || l.e.Instance(args(parent)) != l.spec.Dir {
		return 0, true
	}
	return parent, true
}

// findInit finds the one child of the keeper.
func (l *launch) findInit(context.Context) error {
	pid := l.keeper.pid
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

// finishKill does what a daemon could not that died in Machine.Kill. Others may
// have killed it as well: a frozen init of version 1 stays then, and would die
// once somebody lets it go on.
func (l *launch) finishKill(ctx context.Context) error {
	killed, err := l.init.killed()
	if err != nil {
		return err
	}
	if _, err := os.Stat(l.path(killedName)); err != nil && !killed {
		return nil
	}
	if err := errors.Join(l.init.kill(), l.group.Thaw(ctx)); err != nil {
		return err
	}
	select {
	case <-l.keeper.done:
	case <-ctx.Done():
	}
	return errs.New(errs.State, "the container was being killed")
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
	return l.borrowAgent(fd)
}

// borrowAgent gets the socket of the backchannel, if there is one: keepers of
// older versions have none.
func (l *launch) borrowAgent(keeper int) error {
	c := l.spec.Config
	agent, err := borrow(keeper, fdAgent, backchannelName)
	switch {
	case err != nil && c.Backchannel:
		l.spec.Log.Warn("no backchannel", "vm", l.spec.Name, "err", err)
		return nil
	case err != nil:
		return nil
	case !isListener(agent):
		return agent.Close()
	}
	root := c.FilesystemPath
	if c.Snapshot {
		root = l.path(upperName)
	}
	l.agent, l.socket = agent, filepath.Join(root, backchannelName)
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
