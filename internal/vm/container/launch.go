package container

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/host/stage"
	"minimega/internal/undo"
	"minimega/internal/vm"
	"minimega/internal/vm/container/cgroup"
)

// Names in the instance directory.
const (
	upperName   = "fs"
	workName    = "fs_work"
	uuidName    = "uuid"
	statusName  = "status"
	killedName  = "killed" // there if somebody asked for the end
	consoleName = "console"
)

const undoTime = 10 * time.Second

// launch is one machine in the making.
type launch struct {
	e    *Engine
	spec *vm.Spec
	root Root
	plan *plan

	group   *cgroup.Group
	pty     *terminal
	start   *os.File // eventfd that lets init run
	space   *os.File // user namespace, nil for that of the host
	agent   *os.File // listens for the agent; nil without a backchannel
	socket  string   // its path
	program *program
	keeper  *keeper
	report  *os.File
	init    *process
	console *console
	cc      *backchannel
}

// Launch makes a container whose init waits to be executed.
func (e *Engine) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opts.StartTimeout)
	defer cancel()
	l := &launch{e: e, spec: s}
	defer l.releaseRoot()
	defer func() { _ = l.space.Close() }() // nil closes nothing; others hold it
	err := undo.Run(ctx,
		undo.Step{Name: "prepare file system", Do: l.prepareRoot, Undo: l.removeFiles},
		undo.Step{Name: "make control group", Do: l.makeGroup, Undo: func() error { return l.group.Remove(context.Background()) }},
		undo.Step{Name: "open terminal", Do: l.openTerminal, Undo: func() error { return errors.Join(l.pty.Close(), l.start.Close()) }},
		undo.Step{Name: "open backchannel", Do: l.openBackchannel, Undo: l.closeBackchannel},
		undo.Step{Name: "start container", Do: l.run, Undo: l.end},
		undo.Step{Name: "set up container", Do: l.await, Undo: func() error { return l.init.close() }},
		undo.Step{Name: "check init", Do: l.checkInit},
		undo.Step{Name: "open console", Do: l.openConsole, Undo: func() error { return l.console.Close() }},
		undo.Step{Name: "serve backchannel", Do: l.serveBackchannel},
	)
	if err != nil {
		return nil, errs.InVM(err, s.Name)
	}
	if err := l.pty.closeRest(); err != nil {
		s.Log.Warn("closing what the container has taken over", "err", err)
	}
	return newMachine(l), nil
}

// releaseRoot lets go of the file system, which by now is mounted or unwanted.
func (l *launch) releaseRoot() {
	if err := l.root.release(); err != nil {
		l.spec.Log.Warn("letting go of the file system", "err", err)
	}
}

func (l *launch) path(name string) string { return filepath.Join(l.spec.Dir, name) }

// prepareRoot writes the plan and makes the files that it names. What an
// earlier run left in the directory is replaced.
func (l *launch) prepareRoot(ctx context.Context) (err error) {
	if l.root, err = l.e.opts.Roots.Root(ctx, l.spec.Config.FilesystemPath); err != nil {
		return err
	}
	if err := l.removeFiles(); err != nil {
		return err
	}
	if err = l.makeFiles(); err != nil {
		return errors.Join(err, l.removeFiles())
	}
	return nil
}

func (l *launch) makeFiles() error {
	c := l.spec.Config
	if c.Hostname == "" {
		c.Hostname = l.spec.Name
	}
	pl := &plan{dir: l.spec.Dir, hostname: c.Hostname, preinit: c.Preinit, overlay: c.Snapshot, rootless: l.e.opts.Rootless, filter: l.e.filter}
	l.plan = pl
	if err := l.mapUsers(pl); err != nil {
		return err
	}
	if err := l.choose(pl); err != nil {
		return err
	}
	if err := l.makeRoot(pl); err != nil {
		return err
	}
	if err := os.WriteFile(l.path(uuidName), []byte(c.UUID+"\n"), 0o400); err != nil {
		return err
	}
	if _, err := os.Stat(uuidPath); err == nil {
		pl.uuid = l.path(uuidName)
		if err := pl.users.give(pl.uuid); err != nil {
			return err
		}
	}
	for i := range c.Fifos {
		path := l.path(fifoName(i))
		if err := unix.Mkfifo(path, 0o660); err != nil {
			return fmt.Errorf("make %s: %w", fifoName(i), err)
		}
		if err := pl.users.give(path); err != nil {
			return err
		}
		pl.fifos = append(pl.fifos, path)
	}
	var err error
	pl.volumes, err = makeVolumes(c.VolumePaths)
	return err
}

// mapUsers takes the user namespace that the network namespace belongs to.
func (l *launch) mapUsers(pl *plan) (err error) {
	if !l.spec.Config.UserNS {
		return nil
	}
	if l.space, err = owner(l.spec.Space); err != nil {
		return err
	}
	pl.users = users{fd: fdUsers, first: userBase(l.e.opts.Base, l.spec.ID)}
	return nil
}

// openBackchannel makes the socket of the agent where the container's root has
// its upper directory, or is.
func (l *launch) openBackchannel(context.Context) (err error) {
	if !l.spec.Config.Backchannel {
		return nil
	}
	l.socket = filepath.Join(l.plan.root, backchannelName)
	l.agent, err = listenBackchannel(l.plan.root)
	if errors.Is(err, unix.EROFS) {
		l.spec.Log.Warn("no backchannel: the file system is read-only", "vm", l.spec.Name)
		return nil
	}
	if err != nil || !l.plan.overlay {
		return err
	}
	// An overlay has other inodes than what is below it, and a socket is found
	// by its inode.
	l.plan.cc = l.socket
	return l.plan.users.give(l.plan.cc)
}

func (l *launch) closeBackchannel() error {
	if l.agent == nil {
		return nil
	}
	return errors.Join(l.agent.Close(), removeSocket(l.socket))
}

func (l *launch) serveBackchannel(context.Context) (err error) {
	if l.agent != nil {
		l.cc, err = serveBackchannel(l.e.poller, l.agent, l.socket, l.spec, l.e.opts.Backchannel)
	}
	return err
}

// choose takes the program of the configuration or, if that is the default,
// what the file system names.
func (l *launch) choose(pl *plan) error {
	pl.Program = Program{Args: l.spec.Config.Init}
	if l.root.Program == nil || !slices.Equal(pl.Args, vm.NewConfig().Init) {
		return nil
	}
	p, err := l.root.Program()
	if p == nil || err != nil {
		return err
	}
	size := 0
	for _, w := range slices.Concat(p.Args, p.Env, []string{p.Dir}) {
		if size += len(w) + 1; strings.Contains(w, "\x00") || size > maxWords {
			return errs.New(errs.Invalid, "what the image wants to run is too long, or has a zero byte in it")
		}
	}
	pl.Program = *p
	return nil
}

// makeRoot readies the directory that becomes the root.
func (l *launch) makeRoot(pl *plan) error {
	pl.lower = l.root.Lower
	if !pl.overlay {
		if l.root.Shared {
			return errs.WithRemedy(errs.New(errs.Unsupported, "an image cannot be written in place: others may use it"),
				"set `vm config snapshot true`")
		}
		if len(pl.lower) != 1 {
			return errs.WithRemedy(errs.New(errs.Unsupported, "a file system of several layers cannot be written in place"),
				"set `vm config snapshot true`")
		}
		pl.root = pl.lower[0]
		return nil
	}
	if n := len(pl.overlayOptions()); n > maxOptions {
		return errs.New(errs.Unsupported, "the file system has %d layers, too many for the kernel: their paths have %d characters, and may have %d",
			len(pl.lower), n, maxOptions)
	}
	pl.root = l.path(upperName)
	if err := os.Mkdir(pl.root, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(l.path(workName), 0o700); err != nil {
		return err
	}
	// The overlay shows its own top directory: it is to look like the one below.
	var st unix.Stat_t
	if err := unix.Stat(pl.lower[0], &st); err != nil {
		return fmt.Errorf("%s: %w", pl.lower[0], err)
	}
	if pl.rootless {
		return unix.Chmod(pl.root, st.Mode&0o7777) // its owner may be nobody here
	}
	return errors.Join(os.Lchown(pl.root, int(pl.users.first+st.Uid), int(pl.users.first+st.Gid)), unix.Chmod(pl.root, st.Mode&0o7777))
}

// removeFiles takes back makeFiles.
func (l *launch) removeFiles() error {
	var failed []error
	for _, name := range []string{upperName, workName, uuidName, statusName, killedName, consoleName} {
		failed = append(failed, host.RemoveAll(l.path(name)))
	}
	for i := range l.spec.Config.Fifos {
		failed = append(failed, os.RemoveAll(l.path(fifoName(i))))
	}
	return errors.Join(failed...)
}

func (l *launch) makeGroup(context.Context) (err error) {
	c := l.spec.Config
	l.group, err = l.e.groups.Make(groupName(l.spec.Dir), cgroup.Limits{CPUs: c.VCPUs, Memory: c.Memory << 20, Pids: l.e.opts.Pids})
	if err != nil {
		return err
	}
	l.plan.enter, l.plan.group = l.group.Enter(), l.group.Dir()
	return nil
}

func (l *launch) openTerminal(context.Context) (err error) {
	if l.pty, err = newTerminal(l.plan.users.first); err != nil {
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return errors.Join(err, l.pty.Close())
	}
	l.start = os.NewFile(uintptr(fd), "eventfd")
	return nil
}

// run starts the keeper, which starts the container.
func (l *launch) run(context.Context) (err error) {
	if l.agent == nil {
		if l.agent, err = os.Open(os.DevNull); err != nil { // in its place
			return err
		}
		defer func() { _ = l.agent.Close(); l.agent = nil }()
	}
	l.program = l.plan.build()
	if l.e.edit != nil {
		l.e.edit(l.program)
	}
	image, err := l.program.Open(imageName)
	if err != nil {
		return err
	}
	defer image.Close()
	status, err := os.OpenFile(l.path(statusName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer status.Close()
	report, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer write.Close()
	files := []*os.File{write, l.pty.master, l.start, status, l.pty.mount, l.pty.slave, l.spec.Space, image, l.agent}
	if l.space != nil {
		files = append(files, l.space)
	}
	l.keeper, err = startKeeper(l.e.poller, host.ProcSpec{
		Path: keeperPath, Args: []string{keeperWord, l.spec.Dir}, Dir: "/", Env: []string{}, Files: files,
	})
	if err != nil {
		return errors.Join(executable(err), report.Close())
	}
	l.report = report
	return nil
}

// imageName is what the kernel calls the executable of the first stage.
const imageName = "minimega-container"

// Every keeper is started under keeperPath, which is fdImage, with keeperWord
// and its directory as arguments.
const (
	keeperPath = "/proc/self/fd/10"
	keeperWord = "keeper"
)

// executable says what may be wrong with executing a file in memory.
func executable(err error) error {
	if errors.Is(err, unix.EACCES) {
		return errs.WithRemedy(errs.Wrap(errs.Permission, err), "sysctl vm.memfd_noexec=0")
	}
	return err
}

// end takes back run.
func (l *launch) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	// A child that was born a moment ago is still of the keeper's process
	// group; later it has entered its control group, and asked to die with the
	// keeper.
	_ = unix.Kill(-l.keeper.pid, unix.SIGKILL)
	failed := []error{l.keeper.kill(ctx), l.group.Kill(ctx), l.keeper.close()}
	// Nobody has the other end of the pipe once all are gone.
	err := os.ErrDeadlineExceeded
	for tries := 0; tries < 2 && errors.Is(err, os.ErrDeadlineExceeded); tries++ { // the first may be that of await
		err = l.report.SetReadDeadline(time.Now().Add(undoTime))
		if err == nil {
			_, err = io.Copy(io.Discard, l.report)
		}
	}
	return errors.Join(append(failed, err, l.report.Close())...)
}

// await reads the keeper's reports until all is set up.
func (l *launch) await(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.report.SetReadDeadline(time.Now()) })
	defer stop()
	// Keeper and container report on their own: either may be first.
	for ready := false; !ready || l.init == nil; {
		what, value, err := l.readReport()
		switch {
		case err != nil:
			return errors.Join(l.silent(ctx, err), l.init.close())
		case what == recordReady:
			ready = true
		default:
			l.init, err = openProcess(int(value))
			if errors.Is(err, unix.ESRCH) {
				continue // it has failed and gone already; why is in the next report
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// readRecord reads one record of a program.
func readRecord(r io.Reader) (what uint64, value int64, err error) {
	var b [stage.RecordSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), int64(binary.NativeEndian.Uint64(b[8:])), nil
}

// readReport reads one record. That of a failure becomes an error.
func (l *launch) readReport() (what uint64, value int64, err error) {
	what, value, err = readRecord(l.report)
	if err != nil || what == recordPid || what == recordReady {
		return what, value, err
	}
	f, err := l.program.Failure(what, value)
	if err != nil {
		return 0, 0, err
	}
	return 0, 0, l.plan.failure(f)
}

// silent words the end of the reports.
func (l *launch) silent(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return errs.New(errs.Unreachable, "the container is not set up in time: %w", ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errs.New(errs.State, "the container ended while it was set up")
	}
	return err
}

// failure gives the failure of a call its kind and remedy.
func (pl *plan) failure(f *stage.Failure) error {
	text := errors.New(pl.failed(f))
	switch {
	case f.Name == stepPreinit:
		return errs.Wrap(errs.State, text)
	case f.Name == stepInit:
		return initFailure(pl.Args[0], f.Errno)
	case f.Name == "mount overlay":
		return errs.WithRemedy(errs.New(errs.Unsupported, "%w", text),
			"put the base directory on a file system that an overlay can write to, or set `vm config snapshot false`")
	case strings.HasPrefix(f.Name, stepPlace) && f.Errno == unix.ENOTDIR:
		return errs.WithRemedy(errs.New(errs.Invalid, "in the file system, %s is a link or a file, and no directory", strings.TrimPrefix(f.Name, stepPlace)),
			"make it a directory: every container gets one of its own mounted there")
	case strings.HasPrefix(f.Name, stepMap):
		return notMapped(strings.TrimPrefix(f.Name, stepMap), f.Errno)
	case f.Errno == unix.ENOSPC:
		return errs.Wrap(errs.Resource, text)
	case f.Errno == unix.EPERM:
		return errs.Wrap(errs.Permission, text)
	}
	return text
}

// initFailure says why a program cannot be executed.
func initFailure(path string, errno unix.Errno) error {
	switch errno {
	case unix.ENOENT:
		return errs.WithRemedy(errs.New(errs.NotFound, "the file system has no %s to run as init", path), "set `vm config init`")
	case unix.EACCES:
		return errs.New(errs.Invalid, "init %s cannot be executed: it is no program", path)
	case unix.ENOEXEC:
		return errs.New(errs.Invalid, "init %s is no program for this processor", path)
	}
	return fmt.Errorf("init %s: %w", path, errno)
}

func (l *launch) checkInit(context.Context) error { return checkProgram(l.init.root(), l.plan.Args[0]) }

func (l *launch) openConsole(context.Context) (err error) {
	s, err := newScreen(l.keeper, &l.e.poller.lack)
	if err != nil {
		l.spec.Log.Warn("a console begins empty", "vm", l.spec.Name, "err", err)
	}
	l.console, err = openConsole(l.e.poller, l.pty.master, s, l.path(consoleName), l.e.opts.ConsoleListen, l.spec.Log)
	if err != nil {
		err = errors.Join(err, s.close())
	}
	return err
}

// makeVolumes checks the directories of the host, and makes those whose parent
// exists.
func makeVolumes(paths map[string]string) ([]volume, error) {
	var list []volume
	for inside, source := range paths {
		v := volume{inside: filepath.Clean("/" + inside), source: source}
		if v.inside == "/" {
			return nil, errs.New(errs.Invalid, "a volume cannot take the place of the whole file system: %q", inside)
		}
		st, err := os.Stat(source)
		if errors.Is(err, os.ErrNotExist) {
			if err = os.Mkdir(source, 0o755); err == nil {
				st, err = os.Stat(source)
			}
		}
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, errs.WithRemedy(errs.New(errs.NotFound, "volume %s: there is no directory %s on the host", v.inside, filepath.Dir(source)),
				"make it, or set `vm config volume` to another")
		case err != nil:
			return nil, fmt.Errorf("volume %s: %w", v.inside, err)
		}
		v.file = !st.IsDir()
		list = append(list, v)
	}
	// What is mounted inside another comes after it.
	slices.SortFunc(list, func(a, b volume) int { return len(a.inside) - len(b.inside) })
	return list, nil
}
