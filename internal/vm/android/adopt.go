package android

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/undo"
	"minimega/internal/vm"
)

// Adopt takes over an emulator that an earlier process launched in s.Dir and
// let go of, or died. It fails with errs.NotFound if pid is not that emulator.
// A failed Adopt leaves the emulator as it was.
func (e *Engine) Adopt(ctx context.Context, s *vm.Spec, pid int) (vm.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.StartTimeout)
	defer cancel()
	l := &launch{e: e, spec: s}
	err := undo.Run(ctx,
		undo.Step{Name: "find emulator", Do: func(context.Context) error { return l.find(pid) }, Undo: func() error { return l.proc.Close() }},
		undo.Step{Name: "connect to console", Do: l.connect},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	return newMachine(l), nil
}

// find makes sure that pid is the emulator of this directory, which its
// command line tells, as it does the console port. The watch comes first:
// after it the pid cannot be reused unseen.
func (l *launch) find(pid int) error {
	proc, err := host.AdoptProc(pid)
	if err != nil {
		return errs.Wrap(errs.NotFound, err)
	}
	var port int
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil {
		port, err = portOf(strings.Split(string(line), "\x00"), l.path(logName))
	}
	if err != nil {
		_ = proc.Close()
		return errs.New(errs.NotFound, "process %d is not the emulator of %s: %w", pid, l.spec.Dir, err)
	}
	if err := l.useConsole(port); err != nil {
		return errors.Join(err, proc.Close())
	}
	l.proc = proc
	return nil
}

// value returns what follows an option on a command line, or "".
func value(args []string, option string) string {
	if i := slices.Index(args, option); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// Instance returns the directory of the log on an emulator's command line.
func (e *Engine) Instance(args []string) string {
	dir, ok := strings.CutSuffix(value(args, "-stdouterr-file"), "/"+logName)
	if !ok || !slices.Contains(args, "-qemu") {
		return ""
	}
	return dir
}

// Remains tells why the emulator of a directory ended, from what it printed.
func (e *Engine) Remains(dir string) error {
	words := lastWords(filepath.Join(dir, logName))
	last := words[strings.LastIndex(words, ";")+1:]
	for _, bad := range []string{"ERROR", "FATAL", "PANIC"} {
		if strings.HasPrefix(strings.TrimSpace(last), bad) {
			return errs.New(errs.State, "the emulator ended while no minimega ran: %s", words)
		}
	}
	return nil
}

// portOf reads the console port from an emulator's command line, if that names
// the log.
func portOf(args []string, log string) (int, error) {
	if got := value(args, "-stdouterr-file"); got != log {
		return 0, fmt.Errorf("it logs to %q", got)
	}
	port, err := strconv.Atoi(value(args, "-port"))
	if err == nil && (port < firstPort || port > lastPort || port%2 != 0) {
		err = fmt.Errorf("port %d is not one of an emulator", port)
	}
	return port, err
}
