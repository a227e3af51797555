// Package daemon builds a minimega out of its parts, in order, and takes it
// apart in reverse. It is the only package that knows all others.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"minimega/internal/api"
	"minimega/internal/basedir"
	"minimega/internal/capture"
	"minimega/internal/cli"
	"minimega/internal/cluster"
	"minimega/internal/cluster/share"
	"minimega/internal/command"
	"minimega/internal/deploy"
	"minimega/internal/host"
	"minimega/internal/image"
	"minimega/internal/jobs"
	"minimega/internal/minilog"
	"minimega/internal/namespace"
	"minimega/internal/network"
	"minimega/internal/network/linux"
	"minimega/internal/optimize"
	"minimega/internal/record"
	"minimega/internal/rootless"
	"minimega/internal/undo"
	"minimega/internal/vlan"
	"minimega/internal/vm"
	"minimega/internal/vm/android"
	"minimega/internal/vm/container"
	"minimega/internal/vm/kvm"
	"minimega/pkg/minicli"
)

// Config is what a daemon is started with.
type Config struct {
	Base      string // base directory, absolute
	Files     string // files directory, absolute
	Group     string // group that may use the socket, "" for the owner only
	CGroup    string // mount point of control groups, "" for the usual one
	VLANRange string // "min-max"
	VNCListen string // address on which screens can be reached, "" for loopback
	Mesh      Mesh
	// AbsSnapshot makes disk snapshots name their backing file absolutely.
	AbsSnapshot bool
	FileRate    int64  // bytes a second of files from other hosts, and to them; 0 for any
	HashFiles   bool   // list files with the hash of their content
	HeadNode    string // host whose files are meant where several have them, "" for none
	Force       bool   // remove what an earlier daemon left, instead of taking it over
	// Say tells whoever started the daemon what Force removed, whatever the
	// level of the log; nil for nobody.
	Say func(line string)
	// Args are the command line flags for the command `args`, in order.
	Args func() (names, values []string)
}

// Daemon is a running minimega.
type Daemon struct {
	Router *api.Router

	cfg   Config
	log   *slog.Logger
	quit  *quitter
	parts undo.Stack // how to take it apart
	kvm   *kvm.Engine
	boxes *container.Engine
	jobs  *jobs.Table
	links *linux.Datapath
	mesh  mesh
	facts *host.Monitor
	// engines recognise the processes of their machines.
	engines []vm.Adopter
	adopted bool // what an earlier daemon left is in our hands
	up      bool // the socket is open: from now on the end of the daemon is the end of its VMs
	nuked   atomic.Bool

	server  *api.Server
	serving sync.WaitGroup
	failed  chan error
	stop    chan struct{}
}

// closeTimeout bounds how long the end of a daemon waits for each part.
const closeTimeout = 30 * time.Second

// New builds a daemon and opens its socket last, so that whoever can connect
// can use it. When a part fails, those before it are taken apart again.
func New(ctx context.Context, cfg Config, logs *minilog.Log) (*Daemon, error) {
	d := &Daemon{cfg: cfg, log: logs.Logger(), quit: newQuitter(), failed: make(chan error, 1), stop: make(chan struct{})}
	if err := d.build(ctx, logs); err != nil {
		return nil, errors.Join(err, d.parts.Unwind())
	}
	return d, nil
}

func (d *Daemon) build(ctx context.Context, logs *minilog.Log) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	dir, err := basedir.Open(basedir.Options{Path: d.cfg.Base, Group: d.cfg.Group, Force: d.cfg.Force, Log: d.log})
	if err != nil {
		return err
	}
	d.parts.Push("base directory", dir.Close)
	d.parts.Push("nuke", bounded(func(ctx context.Context) error {
		if !d.nuked.Load() {
			return nil
		}
		return d.sweep(ctx)
	}))
	if err := os.MkdirAll(d.cfg.Files, 0o755); err != nil {
		return fmt.Errorf("files directory: %w", err)
	}
	deps, err := d.owners(hostname)
	if err != nil {
		return err
	}
	cli, err := d.language(deps, logs)
	if err != nil {
		return err
	}
	d.adopted = true
	if err := d.adopt(ctx, deps); err != nil {
		return err
	}
	d.Router = api.NewRouter(cli, api.Options{Host: hostname, Shared: d.shared(), Preprocess: deps.Preprocess,
		Cluster: d.mesh.cluster, Hosts: deps.NS.Hosts, Log: d.log})
	if err := d.joinMesh(ctx, deps.Net); err != nil {
		return err
	}
	if err := d.open(dir); err != nil {
		return err
	}
	d.up = true
	return nil
}

// shared is what sessions start with, as an earlier daemon left it.
func (d *Daemon) shared() *command.Shared {
	path := d.sharedPath()
	d.finally("sessions", func() error { _, err := command.ForgetShared(path); return err })
	s := command.NewShared(namespace.Default)
	if err := s.Keep(path, d.log); err != nil {
		d.log.Warn("namespace, flags and aliases of an earlier minimega cannot be taken over", "err", err)
	}
	return s
}

func (d *Daemon) sharedPath() string { return filepath.Join(d.cfg.Base, "sessions") }

// owners builds what the commands act on.
func (d *Daemon) owners(hostname string) (*command.Deps, error) {
	vlans := vlan.New(d.cfg.Base+"/vlans", d.log)
	d.finally("vlans", vlans.Close)
	if err := d.vlanNames(vlans); err != nil {
		return nil, err
	}
	net, err := d.network(vlans)
	if err != nil {
		return nil, err
	}
	tuned, err := d.optimizer()
	if err != nil {
		return nil, err
	}
	engine := kvm.New(kvm.Options{VNCListen: d.cfg.VNCListen, AbsSnapshot: d.cfg.AbsSnapshot, CacheDir: cacheDir(d.cfg.Base),
		Hugepages: tuned.Hugepages, Started: tuned.Started, Ended: tuned.Ended}, d.log)
	d.parts.Push("kvm engine", engine.Close)
	d.kvm = engine
	captures := capture.Open(filepath.Join(d.cfg.Base, "captures"), d.log)
	d.finally("captures", bounded(captures.Close))
	records := record.Open(filepath.Join(d.cfg.Base, "recordings"), d.log)
	d.finally("recordings", bounded(records.Close))
	files, err := d.shareFiles()
	if err != nil {
		return nil, err
	}

	d.mesh.cluster, d.mesh.files = cluster.New(hostname), files
	deps := &command.Deps{Cluster: d.mesh.cluster, Mesh: d.mesh.commands, Host: hostname, Base: d.cfg.Base, Files: d.cfg.Files, Log: d.log, VLANs: vlans, Net: net, Captures: captures,
		Records: records, Optimize: tuned, Deploy: d.deployer(hostname), QEMU: qemu{engine}, AbsSnapshot: d.cfg.AbsSnapshot, Share: files, HashFiles: d.cfg.HashFiles, Preprocess: command.Preprocessor(d.cfg.Files, files)}
	engines := []vm.Engine{engine, d.containers(), emulator(engine)}
	for _, e := range engines {
		if a, ok := e.(vm.Adopter); ok {
			d.engines = append(d.engines, a)
		}
	}
	deps.VMs = vm.NewManager(vm.Options{
		Base: d.cfg.Base, Host: hostname, Engines: engines, Network: net, VLANName: vlans.Print,
		Parallel: launchesAtOnce(), OnEnd: deps.Ended, OnFlush: deps.Flushed, Log: d.log}, 0)
	d.parts.Push("vms", func() error { deps.VMs.Close(); return nil })
	d.mesh.vlans = share.NewVLANs(d.mesh.cluster, vlans, d.log)
	d.mesh.overlay = share.NewOverlay(d.mesh.cluster, net, d.log)
	deps.NS = namespace.NewRegistry(namespace.Options{
		Cluster: d.mesh.cluster, Facts: d.monitor(deps.VMs).Facts, Files: d.cfg.Files,
		Fetch: func(ctx context.Context, path string) error {
			_, err := files.Fetch(ctx, path)
			return command.FileError(err)
		},
		Share:   sharing{files},
		Overlay: d.mesh.overlay.Set, Tunnels: d.mesh.tunnels(net), DestroyBridge: net.DestroyBridge, VMs: deps.VMs, VLANs: vlans, NetDrivers: command.NetDrivers(deps.QEMU), Log: d.log, Clean: deps.Cleaners(),
		Dir: filepath.Join(d.cfg.Base, "configs")})
	vlans.OnRenumber(d.renumber(deps))
	d.finally("namespaces", bounded(deps.NS.Close))
	return deps, nil
}

// finally pushes the way back of a part that removes what it owns. After a
// start that failed it is not gone: what was adopted must live on.
func (d *Daemon) finally(name string, end func() error) {
	d.parts.Push(name, func() error {
		if d.adopted && !d.up {
			return nil
		}
		return end()
	})
}

// optimizer goes on with how an earlier daemon tuned the host, unless this one
// is to start afresh.
func (d *Daemon) optimizer() (*optimize.Optimizer, error) {
	o, err := optimize.Open(optimize.Options{Base: d.cfg.Base, Log: d.log})
	if err != nil {
		return nil, fmt.Errorf("optimizations: %w", err)
	}
	d.parts.Push("optimizations", o.Close)
	if d.cfg.Force {
		lines, err := o.Discard()
		d.removed(lines)
		return o, err
	}
	return o, nil
}

// deployer starts minimegas like this one on other hosts.
func (d *Daemon) deployer(hostname string) *deploy.Deployer {
	return deploy.New(deploy.Options{
		Host: hostname, Flags: d.cfg.Args, KnownHosts: filepath.Join(d.cfg.Base, "ssh_known_hosts"), DefaultBase: cli.DefaultBase, Log: d.log,
		Check: daemonFlags,
	})
}

// daemonFlags refuses a command line that starts no daemon.
func daemonFlags(flags []string) error {
	c, err := cli.ParseFlags(flags)
	switch {
	case err != nil:
		return err
	case len(c.Args) > 0:
		return fmt.Errorf("%q is no flag", c.Args[0])
	case c.Version || c.CLI || c.Exec || c.Attach || c.Pipe != "":
		return errors.New("these flags start no daemon")
	}
	return nil
}

// containers makes containers, whose groups are those of this base directory.
func (d *Daemon) containers() *container.Engine {
	store := image.NewStore(image.Options{Dir: filepath.Join(d.cfg.Base, image.DirName), Log: d.log})
	e := container.New(container.Options{Base: d.cfg.Base, ConsoleListen: d.cfg.VNCListen, Roots: images{store},
		Rootless: rootless.Inside(), Cgroups: d.cgroups()}, d.log)
	d.parts.Push("container engine", e.Close)
	d.boxes = e
	return e
}

// cgroups is where control groups are: with root as the command line says,
// without where the system has lent some.
func (d *Daemon) cgroups() string {
	if rootless.Inside() {
		return rootless.Cgroups()
	}
	return d.cfg.CGroup
}

// emulator makes Android devices, whose emulator takes QEMU's arguments too.
func emulator(qemu *kvm.Engine) *android.Engine {
	return android.New(android.Options{QEMU: func(ctx context.Context, id int, dir string, c *vm.Config) ([]string, error) {
		_, args, err := qemu.Arguments(ctx, id, dir, c)
		return args, err
	}})
}

// launchesAtOnce is how many VMs are made side by side: a launch waits for
// QEMU about as long as it computes.
func launchesAtOnce() int { return 2 * runtime.NumCPU() }

func (d *Daemon) network(vlans *vlan.Registry) (*network.Manager, error) {
	dp, err := linux.New(d.cfg.Base, d.log)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	net, err := network.New(dp, network.Options{Base: d.cfg.Base, VLAN: vlans.Qualified, Log: d.log})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network: %w", err), dp.Close(context.Background()))
	}
	d.links = dp
	d.finally("network", bounded(net.Close))
	return net, nil
}

// monitor tells the facts of this host.
func (d *Daemon) monitor(vms *vm.Manager) *host.Monitor {
	d.facts = host.NewMonitor(d.log, func() host.Commit {
		var c host.Commit
		c.VCPUs, c.MemMB, c.NICs, c.VMs = vms.Commit()
		c.Android = vms.Living(vm.Android)
		c.Tolerates = vms.Tolerates()
		return c
	})
	d.parts.Push("host monitor", d.facts.Close)
	return d.facts
}

// language makes the command language of all families.
func (d *Daemon) language(deps *command.Deps, logs *minilog.Log) (*minicli.CLI, error) {
	d.mesh.logs = share.NewLogs(d.mesh.cluster, logs)
	deps.Logs = d.mesh.logs
	table := jobs.Open(filepath.Join(d.cfg.Base, "background"), d.log)
	d.finally("background processes of an earlier minimega", func() error { _, err := table.Discard(); return err })
	d.parts.Push("background processes", table.Close)
	d.jobs = table
	machine := command.Machine{Facts: d.facts.Facts, Checks: append(d.checks(deps.VMs), d.meshChecks(deps.Net)...), Args: d.cfg.Args, Quit: d.quit.Quit, Nuke: d.nuke}
	return Language(deps, machine, table, logs)
}

// open starts answering, with the socket as the last thing to appear.
func (d *Daemon) open(dir *basedir.Dir) error {
	d.server = api.NewServer(d.Router, nil, d.log)
	d.parts.Push("doors", func() error {
		close(d.stop)
		err := bounded(d.server.Close)()
		d.serving.Wait()
		return err
	})
	l, err := dir.Listen()
	if err != nil {
		return err
	}
	d.serving.Go(func() {
		if err := d.server.Serve(l); err != nil {
			d.failed <- err
		}
	})
	d.serving.Go(func() { d.quit.run(d.stop) })
	return nil
}

// Wait returns when the daemon is to end: ctx has ended, `quit` was said, or
// the socket failed, which is the error.
func (d *Daemon) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.quit.quit:
		return nil
	case err := <-d.failed:
		return err
	}
}

// Close ends all VMs and takes the daemon apart.
func (d *Daemon) Close() error { return d.parts.Unwind() }

// bounded gives a part a context to end in.
func bounded(end func(context.Context) error) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return end(ctx)
	}
}
