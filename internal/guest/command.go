package guest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"
	"time"

	"minimega/internal/errs"
	"minimega/internal/guest/image"
	"minimega/internal/guest/initrd"
)

const usage = `usage: minimega guest COMMAND [flags]

The built-in guest is a small Linux machine made of this program and a kernel.

  kernel   print the path of the kernel that will be used
  initrd   make an initrd:  vm config kernel ..., vm config initrd ...
  disk     make a disk that boots by itself:  vm config disk ...
  rootfs   make the root of containers, without a kernel:  vm config filesystem ...

minimega guest COMMAND -h tells the flags of a command.
The guest reads its kernel command line (vm config append), in a container the
words after /init (vm config init):

  hostname=NAME            name of the machine
  ip=[ethN:]ADDR/BITS      a static address; without ethN: of eth0
  ip=[ethN:]dhcp           DHCP (the default); without ethN: on all interfaces
  ip=[ethN:]none           no address
  gw=ADDR dns=ADDR,...     default gateway, name servers
  login=USER:PASSWORD      ask for these at the consoles
  forward=1                pass on packets for others
  visit=URL,...            fetch these pages again and again
`

// Command runs `minimega guest ARGS...` and returns the exit status: 0, 1 if
// it failed, 2 if it was not understood.
func Command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	c := maker{stdout: stdout, stderr: stderr}
	var run func(context.Context, []string) error
	switch args[0] {
	case "kernel":
		run = c.kernel
	case "initrd":
		run = c.initrd
	case "disk":
		run = c.disk
	case "rootfs":
		run = c.rootfs
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "minimega guest: no command %q\n\n%s", args[0], usage)
		return 2
	}
	err := run(ctx, args[1:])
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errs.KindOf(err) == errs.Invalid:
		fmt.Fprintf(stderr, "minimega guest %s: %v\n", args[0], err)
		return 2
	default:
		fmt.Fprintf(stderr, "minimega guest %s: %v\n", args[0], err)
		return 1
	}
}

// maker runs the commands.
type maker struct {
	stdout, stderr io.Writer
}

// options are the flags that initrd and disk share.
type options struct {
	out, kernel, drivers, modules, binary, append string
	compress                                      bool
	add                                           fileMap
}

// fileMap is the flag -add SOURCE:PLACE, which may be repeated.
type fileMap map[string]string

func (f fileMap) String() string { return "" }

func (f fileMap) Set(v string) error {
	src, dst, ok := strings.Cut(v, ":")
	if !ok || src == "" || !path.IsAbs(dst) {
		return errors.New("want SOURCE:PLACE with an absolute place in the guest")
	}
	f[dst] = src
	return nil
}

func (c maker) flags(name, out string, o *options) *flag.FlagSet {
	o.add = fileMap{}
	fs := flag.NewFlagSet("minimega guest "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // parse says it once
	fs.StringVar(&o.out, "o", out, "`FILE` to make")
	fs.StringVar(&o.kernel, "kernel", "", "vmlinuz `FILE`, or a directory made by setup/kernel (default: as `minimega guest kernel` finds it)")
	fs.StringVar(&o.drivers, "drivers", strings.Join(initrd.DefaultDrivers(), ","), "kernel modules to load where their devices are, `NAME,...`")
	fs.StringVar(&o.modules, "modules", "", "more kernel modules, `NAME,...`, to load in any case (8021q, sch_netem, ...)")
	fs.StringVar(&o.binary, "init", "", "static `PROGRAM` to run as /init (default: this one)")
	fs.Var(o.add, "add", "put a file or a directory into the guest, `SOURCE:PLACE`; may be repeated")
	return fs
}

func (c maker) parse(fs *flag.FlagSet, args []string) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(c.stdout, "usage: %s [flags]\n\n", fs.Name())
		fs.SetOutput(c.stdout)
		fs.PrintDefaults()
		return err
	}
	if err != nil {
		return errs.WithRemedy(errs.Wrap(errs.Invalid, err), "-h tells the flags")
	}
	if fs.NArg() > 0 {
		return errs.New(errs.Invalid, "unexpected %q (-h tells the flags)", fs.Arg(0))
	}
	return nil
}

func (c maker) kernel(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("minimega guest kernel", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	all := fs.Bool("v", false, "also print the unpacked kernel (boots faster, without a screen), the version and the directory of the modules")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	k, err := FindKernel()
	if err != nil {
		return err
	}
	fmt.Fprintln(c.stdout, k.Path)
	if *all {
		fmt.Fprintf(c.stdout, "unpacked: %s\nversion: %s\nmodules: %s\n", k.Unpacked, k.Version, k.ModulesDir)
	}
	return nil
}

func (c maker) initrd(_ context.Context, args []string) error {
	var o options
	fs := c.flags("initrd", "guest.initrd", &o)
	fs.BoolVar(&o.compress, "z", false, "compress: smaller, slower to boot")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	start := time.Now()
	k, err := o.findKernel()
	if err != nil {
		return err
	}
	rep, err := initrd.WriteFile(o.out, o.initrd(k))
	if err != nil {
		return err
	}
	c.report(o.out, k, rep, start)
	return nil
}

func (o options) findKernel() (Kernel, error) {
	if o.kernel == "" {
		return FindKernel()
	}
	k, err := kernelAt(o.kernel, modulesRoot)
	if err != nil {
		return Kernel{}, errs.New(errs.NotFound, "no kernel at %s: %w", o.kernel, err)
	}
	return k, nil
}

func (o options) initrd(k Kernel) initrd.Options {
	return initrd.Options{Binary: o.binary, ModulesDir: k.ModulesDir, Drivers: names(o.drivers), Modules: names(o.modules), Files: o.add, Compress: o.compress}
}

// names splits a list; it is never nil.
func names(list string) []string {
	return append([]string{}, strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })...)
}

func (c maker) report(file string, k Kernel, rep initrd.Report, start time.Time) {
	fmt.Fprintf(c.stdout, "%s: for kernel %s (%s), %d modules, made in %.2f s\n",
		file, k.Version, k.Path, len(rep.Modules), time.Since(start).Seconds())
	if k.ModulesDir == "" {
		fmt.Fprintf(c.stderr, "warning: the modules of kernel %s are not here; the guest has only the drivers built into it\n", k.Path)
	}
	if len(rep.Missing) > 0 {
		sort.Strings(rep.Missing)
		fmt.Fprintf(c.stderr, "warning: kernel %s has no %s\n", k.Version, strings.Join(rep.Missing, ", "))
	}
}

func (c maker) rootfs(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("minimega guest rootfs", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	out := fs.String("o", "guest.root", "`DIRECTORY` to make")
	binary := fs.String("init", "", "static `PROGRAM` to run as /init (default: this one)")
	add := fileMap{}
	fs.Var(add, "add", "put a file or a directory into the guest, `SOURCE:PLACE`; may be repeated")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	return initrd.WriteDir(*out, initrd.Options{Binary: *binary, Files: add})
}

func (c maker) disk(ctx context.Context, args []string) error {
	var o options
	fs := c.flags("disk", "guest.qc2", &o)
	fs.StringVar(&o.append, "append", "", "more `WORDS` for the kernel command line")
	if err := c.parse(fs, args); err != nil {
		return err
	}
	start := time.Now()
	k, err := o.findKernel()
	if err != nil {
		return err
	}
	rep, err := image.Write(ctx, o.out, image.Options{Kernel: k.Path, Initrd: o.initrd(k), Append: o.append})
	if err != nil {
		return err
	}
	c.report(o.out, k, rep, start)
	return nil
}
