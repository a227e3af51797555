// Package container makes containers: processes in namespaces of their own,
// limited by control groups, without what they could harm the host with.
//
// A container has two processes of minimega's: a keeper on the host, which
// holds its console, with what that showed last, and learns how init ended, so
// that these outlive the daemon, and the first process inside, which becomes
// init when the VM is started. Both are programs of package stage, made of a
// few system calls.
package container

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/bpf"
	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/container/cgroup"
)

// Options change how containers are made. Base is needed.
type Options struct {
	Base          string // base directory: its containers are this engine's
	Cgroups       string // where control groups are mounted, default /sys/fs/cgroup
	ConsoleListen string // address for console clients, default 127.0.0.1
	Pids          uint64 // most processes in a container, default 4096
	Roots         Roots  // default: directories
	StartTimeout  time.Duration
	// Rootless says that root is that of a user namespace, who may not make
	// device nodes: containers get the host's devices. There are control groups
	// only where Cgroups says.
	Rootless bool
	// Backchannel serves connections of containers to their /cc. It returns
	// when the connection ends, which it does at the latest with ctx; it is
	// closed then. Default: they are closed at once.
	Backchannel func(ctx context.Context, s *vm.Spec, conn net.Conn)
}

// Root is a file system, prepared for containers.
type Root struct {
	// Lower are its layers, topmost first: directories that containers with
	// snapshot share. One without snapshot can have only one, and writes to it.
	Lower []string
	// Shared file systems are never written in place.
	Shared bool
	// Program tells what is to run if the configuration does not say; nil, or
	// returning nil, if the file system does not say either.
	Program func() (*Program, error)
	// Release, if there is one, says that the file system is mounted by now or
	// no longer wanted.
	Release func() error
}

// Program is a process to be made. All but Args may be empty.
type Program struct {
	Args     []string // the first is the absolute path of the program
	Env      []string // NAME=value
	Dir      string   // working directory, absolute; made if it is missing
	UID, GID uint32
	Groups   []uint32
}

func (r Root) release() error {
	if r.Release == nil {
		return nil
	}
	return r.Release()
}

// Roots prepares the file systems that configurations name. A prepared one is
// there until it is released.
type Roots interface {
	Root(ctx context.Context, path string) (Root, error)
}

// Engine makes machines of type vm.Container.
type Engine struct {
	opts   Options
	log    *slog.Logger
	groups *cgroup.Tree
	broken error // why no container can be made here
	filter []bpf.RawInstruction
	poller *poller // of consoles
	spaces spacePool
	// edit, if set, changes programs before they run: tests make them fail.
	edit func(*program)
}

// New returns an engine. What this host lacks is said when a container is made.
func New(opts Options, log *slog.Logger) *Engine {
	if opts.ConsoleListen == "" {
		opts.ConsoleListen = "127.0.0.1"
	}
	if opts.Cgroups == "" && !opts.Rootless {
		opts.Cgroups = cgroup.DefaultRoot
	}
	if opts.Pids == 0 {
		opts.Pids = 4096
	}
	if opts.Roots == nil {
		opts.Roots = directories{}
	}
	if opts.StartTimeout == 0 {
		opts.StartTimeout = time.Minute
	}
	e := &Engine{opts: opts, log: log}
	switch {
	case !opts.Rootless:
		e.groups, e.broken = cgroup.Open(opts.Cgroups, groupParent(opts.Base))
	case opts.Cgroups != "":
		e.groups, e.broken = cgroup.OpenLent(opts.Cgroups, groupParent(opts.Base))
	default:
		e.groups = cgroup.None()
	}
	if e.broken == nil {
		e.filter, e.broken = seccompFilter()
	}
	if e.broken == nil {
		e.poller, e.broken = newPoller(log)
	}
	return e
}

// Close removes the engine's control groups. Machines are not its own; they
// must have been closed.
func (e *Engine) Close() error {
	failed := []error{e.spaces.Close()}
	if e.poller != nil {
		failed = append(failed, e.poller.Close())
	}
	if e.groups != nil {
		failed = append(failed, e.groups.Close())
	}
	return errors.Join(failed...)
}

// Type returns vm.Container.
func (e *Engine) Type() vm.Type { return vm.Container }

// Ready tells what keeps this host from making containers, nil if nothing does.
func (e *Engine) Ready(context.Context) error {
	if e.broken != nil {
		return e.broken
	}
	if os.Geteuid() != 0 {
		return errs.WithRemedy(errs.New(errs.Permission, "containers need root"), "run minimega as root")
	}
	return nil
}

// Diagnose is Ready, and besides names limits that this host cannot set.
func (e *Engine) Diagnose(ctx context.Context) error {
	if err := e.Ready(ctx); err != nil {
		return err
	}
	if missing := e.groups.Missing(); len(missing) > 0 {
		remedy := "have the kernel and the system offer these controllers"
		if e.opts.Rootless {
			remedy = cgroup.Remedy
		}
		return errs.WithRemedy(errs.New(errs.Unsupported, "containers are not limited in what belongs to %s", strings.Join(missing, ", ")), remedy)
	}
	return nil
}

// NewSpace makes the network namespace of a machine. It lasts as long as a
// process is in it or the file is open.
func (e *Engine) NewSpace(_ context.Context, s *vm.Spec) (*os.File, error) {
	if s.Config.UserNS {
		return makeUserSpace(userBase(e.opts.Base, s.ID))
	}
	return e.spaces.take()
}

// groupParent is where the control groups of a base directory are: two daemons
// on a host must not share them.
func groupParent(base string) string {
	sum := sha256.Sum256([]byte(base))
	return filepath.Join("minimega", hex.EncodeToString(sum[:])[:8])
}

// groupName is the control group of a machine.
func groupName(dir string) string { return filepath.Base(dir) }

func fifoName(i uint64) string { return "fifo" + strconv.FormatUint(i, 10) }
