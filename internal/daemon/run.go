package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"minimega/internal/api"
	"minimega/internal/cli"
	"minimega/internal/command"
	"minimega/internal/jobs"
	"minimega/internal/minilog"
	"minimega/internal/version"
	"minimega/internal/vm"
)

// ConfigOf takes from the command line what a daemon needs.
func ConfigOf(c cli.Config) (Config, error) {
	base, err := filepath.Abs(c.Base)
	if err != nil {
		return Config{}, err
	}
	files, err := filepath.Abs(c.FilePath)
	if err != nil {
		return Config{}, err
	}
	return Config{Base: base, Files: files, Group: c.Group, CGroup: c.CGroup, VLANRange: c.VLANRange, VNCListen: c.VNCListen,
		AbsSnapshot: c.AbsSnapshot, HashFiles: c.HashFiles, FileRate: int64(c.FileRate), HeadNode: c.HeadNode, Force: c.Force,
		Mesh: Mesh{KeyFile: c.MeshKey, Open: c.MeshOpen, Context: c.Context, Port: c.Port, Degree: int(c.Degree),
			MSA: time.Duration(c.MSA) * time.Second, Broadcast: c.Broadcast, Dial: c.MeshDial},
		Args: func() (names, values []string) {
			header, rows := c.Table()
			return header, rows[0]
		}}, nil
}

// SpareMemory has a daemon give back what it does not use sooner when it uses
// much, as after the answer to `vm info` of many thousands of VMs. Below that
// nothing changes, and more is used where more is needed.
func SpareMemory() { debug.SetMemoryLimit(880 << 20) }

// Run is a daemon's whole life: it starts, answers until it is to end, and
// takes everything down. It returns the exit status.
func Run(ctx context.Context, c cli.Config, std cli.Stdio) int {
	SpareMemory()
	if err := run(ctx, c, std); err != nil {
		fmt.Fprintln(std.Err, "minimega:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, c cli.Config, std cli.Stdio) error {
	cfg, err := ConfigOf(c)
	if err != nil {
		return err
	}
	level, err := minilog.ParseLevel(c.Level)
	if err != nil {
		return err
	}
	logs, err := minilog.New(minilog.Options{Level: level, Verbose: c.Verbose, File: c.LogFile}, std.Err)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.Out, "minimega %s\n", version.String())
	cfg.Say = func(line string) { fmt.Fprintln(std.Out, line) }
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	d, err := New(ctx, cfg, logs)
	if err != nil {
		return errors.Join(err, logs.Close())
	}
	err = d.live(ctx, c, std, signals)
	return errors.Join(err, d.Close(), logs.Close())
}

// live returns when the daemon is to end.
func (d *Daemon) live(ctx context.Context, c cli.Config, std cli.Stdio, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	var t *api.Terminal
	typed := make(chan error, 1)
	var typing sync.WaitGroup
	defer typing.Wait() // then the terminal is as it was
	defer cancel()
	if !c.NoStdin {
		t = api.NewTerminal(d.Router, api.TerminalOptions{In: std.In, Out: std.Out, Err: std.Err,
			History: filepath.Join(d.cfg.Base, "history"), Log: d.log})
		typing.Go(func() { typed <- t.Run(ctx) })
	}
	ended := make(chan error, 1)
	d.serving.Go(func() { ended <- d.Wait(ctx) })
	for {
		select {
		case s := <-signals:
			if s == os.Interrupt && t != nil && t.Interrupt() {
				continue
			}
			if c.Panic {
				debug.SetTraceback("all")
				panic(s.String())
			}
			return nil
		case err := <-typed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case err := <-ended:
			return err
		}
	}
}

// Dump prints all commands as JSON, for programs that make bindings.
func Dump(std cli.Stdio) int {
	language, err := describe()
	if err != nil {
		fmt.Fprintln(std.Err, "minimega:", err)
		return 1
	}
	fmt.Fprintf(std.Out, "%s\n", language)
	return 0
}

// describe makes the language without anything that its commands act on.
func describe() ([]byte, error) {
	logs, err := minilog.New(minilog.Options{}, io.Discard)
	if err != nil {
		return nil, err
	}
	defer logs.Close()
	deps := &command.Deps{Log: logs.Logger(), VMs: vm.NewManager(vm.Options{Engines: []vm.Engine{typeOnly(vm.KVM)}, Log: logs.Logger()}, 0)}
	language, err := Language(deps, command.Machine{}, jobs.New(logs.Logger()), logs)
	if err != nil {
		return nil, err
	}
	return language.Dump()
}

// typeOnly is an engine that is only asked for its type.
type typeOnly vm.Type

func (t typeOnly) Type() vm.Type                         { return vm.Type(t) }
func (typeOnly) Check(context.Context, *vm.Config) error { return errNoEngine }
func (typeOnly) Launch(context.Context, *vm.Spec) (vm.Machine, error) {
	return nil, errNoEngine
}

var errNoEngine = errors.New("no engine")
