// Package demo is `minimega demo`: a small network of real guests that shows
// what minimega does, step by step, through the same socket that everybody
// uses, and cleans up after itself.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"minimega/internal/daemon"
	"minimega/internal/errs"
	"minimega/internal/guest"
	"minimega/internal/guest/initrd"
	"minimega/internal/host"
	"minimega/internal/minilog"
	"minimega/internal/undo"
	"minimega/pkg/miniclient"
)

const usage = `usage: minimega demo [flags]

Builds a network of three small virtual machines, records a screen and the
packets on a wire, shows what came of it, and cleans up. Where QEMU or a kernel
for the guests is missing, and with -containers, it builds a routed network of
twenty containers instead.

`

// options are the flags of the demo.
type options struct {
	out  string // directory for what is left to look at
	stay bool   // keep the network until Ctrl-C
	// containers instead of virtual machines
	containers bool
}

// Run runs the demo and returns the exit status: 0, 1 when it failed, 2 when
// the flags were not understood. It cleans up also when ctx ends.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	d := &demo{options: o, out: stdout, start: time.Now()}
	if err := d.run(ctx); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(stdout, "\nStopped; everything is cleaned up.")
			return 1
		}
		fmt.Fprintf(stderr, "minimega demo: %v\n", err)
		return 1
	}
	return 0
}

// Runs reports whether Run would do more with these arguments than say how to
// give them.
func Runs(args []string) bool {
	_, err := parse(args, io.Discard, io.Discard)
	return err == nil
}

// parse reads the flags. What is wrong with them it says itself, and with
// flag.ErrHelp how to give them.
func parse(args []string, stdout, stderr io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("minimega demo", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.out, "o", "minimega-demo", "`DIRECTORY` for the picture, the recording and the packets")
	fs.BoolVar(&o.stay, "stay", false, "keep the network running until Ctrl-C, to try things out")
	fs.BoolVar(&o.containers, "containers", false, "show a network of containers: needs neither QEMU nor a kernel for guests")
	err = fs.Parse(args)
	if err == nil && fs.NArg() > 0 {
		err = fmt.Errorf("there is nothing to say but flags: %q", fs.Arg(0))
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		fs.SetOutput(stdout)
		fs.PrintDefaults()
	case err != nil:
		fmt.Fprintf(stderr, "minimega demo: %v (minimega demo -h tells the flags)\n", err)
	}
	return o, err
}

type demo struct {
	options
	out   io.Writer
	start time.Time
	step  int

	base   string
	conn   *miniclient.Conn
	kernel guest.Kernel
	parts  undo.Stack
}

// run does the steps and takes everything apart again, in any case.
func (d *demo) run(ctx context.Context) error {
	err := d.prepare(ctx)
	if err == nil {
		tour := d.show
		if d.containers {
			tour = d.showNetwork
		}
		err = tour(ctx)
	}
	if err == nil && d.stay {
		d.wait(ctx)
	}
	if len(d.base) > 0 {
		d.say("Cleaning up: machines, wires and files of the demo go.")
	}
	return errors.Join(err, d.parts.Unwind())
}

// prepare looks for what is needed and starts a daemon of the demo's own.
func (d *demo) prepare(ctx context.Context) error {
	d.say("Looking at this machine.")
	if err := d.check(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(d.options.out, 0o755); err != nil {
		return err
	}
	abs, err := filepath.Abs(d.options.out)
	if err != nil {
		return err
	}
	d.options.out = abs
	if d.base, err = os.MkdirTemp("", "minimega-demo-"); err != nil {
		return err
	}
	d.parts.Push("directory", func() error { return os.RemoveAll(d.base) })

	d.say("Making the guests' system out of this very program.")
	if err := d.makeGuest(); err != nil {
		return err
	}

	d.say("Starting a minimega, with its base directory in " + d.base + ".")
	return d.startDaemon(ctx)
}

// makeGuest makes what the guests run.
func (d *demo) makeGuest() error {
	if d.containers {
		return d.makeRootfs()
	}
	rep, err := initrd.WriteFile(d.initrd(), initrd.Options{ModulesDir: d.kernel.ModulesDir})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "    kernel %s, %d drivers\n", d.kernel.Version, len(rep.Modules))
	return nil
}

func (d *demo) initrd() string { return filepath.Join(d.base, "guest.initrd") }

// check chooses containers where machines cannot be had, and names everything
// else that is missing at once.
func (d *demo) check(ctx context.Context) error {
	var missing []error
	if os.Geteuid() != 0 {
		missing = append(missing, errs.WithRemedy(errs.New(errs.Permission, "only root may make taps and bridges"), "run `sudo minimega demo`"))
	}
	if !d.containers {
		var err error
		d.kernel, err = guest.FindKernel()
		for _, c := range append(host.BasicChecks(os.TempDir()), host.QEMU()) {
			if err == nil && (c.Name == "qemu" || slices.Contains(machinesOnly, c.Name)) {
				err = c.Run(ctx)
			}
		}
		if err != nil {
			fmt.Fprintf(d.out, "    No virtual machines here (%v): showing containers.\n", err)
			d.containers = true
		}
	}
	for _, f := range host.RunChecks(ctx, host.BasicChecks(os.TempDir())) {
		if !f.Check.Optional && (!d.containers || !slices.Contains(machinesOnly, f.Check.Name)) {
			missing = append(missing, errors.New(f.String()))
		}
	}
	return errors.Join(missing...)
}

// machinesOnly are checks of what containers do without.
var machinesOnly = []string{"qemu-img", "tun"}

func (d *demo) startDaemon(ctx context.Context) error {
	logs, err := minilog.New(minilog.DefaultOptions(), io.Discard)
	if err != nil {
		return err
	}
	d.parts.Push("log", logs.Close)
	base := filepath.Join(d.base, "base")
	dm, err := daemon.New(ctx, daemon.Config{Base: base, Files: filepath.Join(base, "files"), VLANRange: "101-4096",
		Args: func() (names, values []string) { return nil, nil }}, logs)
	if err != nil {
		return err
	}
	d.parts.Push("daemon", dm.Close)
	if d.conn, err = miniclient.Dial(ctx, base); err != nil {
		return err
	}
	d.parts.Push("connection", d.conn.Close)
	return nil
}

// say opens a step.
func (d *demo) say(text string) {
	d.step++
	fmt.Fprintf(d.out, "\n%d. %s  [%.1f s]\n", d.step, text, time.Since(d.start).Seconds())
}

// wait keeps the network until the user has seen enough.
func (d *demo) wait(ctx context.Context) {
	exe, err := os.Executable()
	if err != nil {
		exe = "minimega"
	}
	fmt.Fprintf(d.out, "\nThe network stays. In another terminal:\n\n    %s -base %s/base -attach\n\nCtrl-C ends it.\n", exe, d.base)
	<-ctx.Done()
}
