package container

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"minimega/internal/host/stage"
)

// Descriptors that the keeper is started with.
const (
	fdReport   = stage.Report // pipe to the daemon: what fails, and when all is set up
	fdTerminal = 4            // master of the console's terminal; kept by the keeper
	fdStart    = 5            // eventfd: init may run; kept by the keeper
	fdStatus   = 6            // file for how init ended; kept by the keeper
	fdPts      = 7            // mount of the container's terminals
	fdConsole  = 8            // the console's terminal; kept by the keeper
	fdSpace    = 9            // network namespace
	fdImage    = 10           // the program itself
	fdAgent    = 11           // listens for the agent; kept by the keeper
	fdUsers    = 12           // user namespace, if there is one
)

// Records on the report pipe that are no failures: at their start stands one
// of these, where a failure has the address of a call.
const (
	recordPid   = 1 // a process id follows
	recordReady = 2
)

// plan is all that the first stage of a container needs to know. Paths are
// absolute and of the host, unless said otherwise.
type plan struct {
	dir      string // instance directory
	root     string // mount point
	lower    []string
	overlay  bool // else root is the file system itself
	hostname string
	Program
	preinit  string
	users    users
	cc       string // socket of the agent to be mounted over /cc, "" if it is there without that
	uuid     string // file with the UUID, "" if the host has no place for it
	fifos    []string
	volumes  []volume
	rootless bool     // see Options
	enter    []string // files to which to write 0 to enter the control group
	group    string   // or directory to be cloned into
	filter   []bpf.RawInstruction
}

// volume is a directory or file of the host inside a container.
type volume struct {
	inside string // absolute, clean
	source string
	file   bool
}

// program builds calls; names of steps are what errors say.
type program struct {
	stage.Program
	scratch stage.Arg // 64 bits that nobody reads
}

// call adds a call that must succeed, and returns its index.
func (p *program) call(name string, nr int, args ...stage.Arg) int {
	c := stage.Call{Name: name, Nr: nr}
	copy(c.Args[:], args)
	return p.Add(c)
}

// may adds a call that may fail with this error, or with any (stage.Ignore).
func (p *program) may(errno int, name string, nr int, args ...stage.Arg) int {
	i := p.call(name, nr, args...)
	p.Calls[i].May = errno
	return i
}

func (p *program) s(text string) stage.Arg { return p.String(text) }

var atCwd = stage.Int(unix.AT_FDCWD)

// What the program of a container without volumes has.
const (
	typicalCalls  = 192
	typicalMemory = 8 << 10
)

// build writes the program of a container: that of the keeper, which stays on
// the host, and from its fork on that of the container.
func (pl *plan) build() *program {
	p := &program{}
	p.Reserve(typicalCalls, typicalMemory)
	p.Room = roomSize
	p.scratch = p.Words(0)
	p.call("close", unix.SYS_CLOSE, fdImage)
	fork, pid := pl.fork(p)
	status := p.Words(0)
	p.call("report process", unix.SYS_WRITE, fdReport, pid, stage.RecordSize)
	for _, fd := range []stage.Arg{fdReport, fdPts, fdSpace} {
		p.call("close", unix.SYS_CLOSE, fd)
	}
	if pl.users.mapped() {
		p.call("close", unix.SYS_CLOSE, fdUsers)
	}
	wait := p.call("wait for init", unix.SYS_WAIT4, 0, status, unix.WALL)
	p.Calls[fork].Out = []stage.Slot{stage.At(pid + 8), stage.ArgOf(wait, 0)}
	p.may(stage.Ignore, "write status", unix.SYS_PWRITE64, fdStatus, status, 4, 0)
	p.call("exit", unix.SYS_EXIT_GROUP, 0)

	p.Calls[fork].IfZero = len(p.Calls)
	pl.enterSpaces(p)
	trees := pl.openAgent(p)
	pl.mountRoot(p)
	trees = append(trees, pl.openSources(p)...)
	pl.runPreinit(p)
	pl.changeRoot(p)
	pl.mountSystem(p)
	pl.attachSources(p, trees)
	mask(p)
	pl.loopback(p)
	pl.enterDir(p)
	pl.giveUp(p)
	pl.execute(p)
	return p
}

const spaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// fork makes the container's first process. It returns the call, whose result
// is the process id, and the record with which that is reported.
func (pl *plan) fork(p *program) (fork int, record stage.Arg) {
	record = p.Words(recordPid, 0)
	if pl.group == "" {
		return p.call("create namespaces", unix.SYS_CLONE, stage.Arg(spaces|unix.SIGCHLD)), record
	}
	args := p.Words(spaces|unix.CLONE_INTO_CGROUP, 0, 0, 0, stage.Arg(unix.SIGCHLD), 0, 0, 0, 0, 0, 0) // struct clone_args
	const cgroup, size = 10, 11 * 8
	open := p.call("open control group", unix.SYS_OPENAT, atCwd, p.s(pl.group), unix.O_PATH|unix.O_CLOEXEC)
	p.Calls[open].Out = []stage.Slot{stage.At(args + 8*cgroup)}
	return p.call("create namespaces", unix.SYS_CLONE3, args, size), record
}

// enterSpaces is the first that the new process does: its groups, its network,
// its session with the console as terminal, its name.
func (pl *plan) enterSpaces(p *program) {
	p.call("follow the keeper", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, stage.Arg(unix.SIGKILL))
	p.call("close", unix.SYS_CLOSE, fdTerminal)
	p.call("close", unix.SYS_CLOSE, fdStatus)
	p.call("close", unix.SYS_CLOSE, fdAgent)
	for _, fd := range []stage.Arg{fdReport, fdStart, fdPts} {
		p.call("close on execution", unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	zero := p.s("0")
	for _, file := range pl.enter {
		open := p.call("open control group", unix.SYS_OPENAT, atCwd, p.s(file), unix.O_WRONLY|unix.O_CLOEXEC)
		p.Calls[open].Out = []stage.Slot{stage.ArgOf(open+1, 0), stage.ArgOf(open+2, 0)}
		p.call("enter control group", unix.SYS_WRITE, 0, zero, 1)
		p.call("close", unix.SYS_CLOSE, 0)
	}
	p.may(int(unix.EINVAL), "hide control groups", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	p.call("enter network namespace", unix.SYS_SETNS, fdSpace, unix.CLONE_NEWNET)
	p.call("close", unix.SYS_CLOSE, fdSpace)
	p.call("start session", unix.SYS_SETSID)
	p.call("take terminal", unix.SYS_IOCTL, fdConsole, unix.TIOCSCTTY, 0)
	for fd := range stage.Arg(3) {
		p.call("open terminal", unix.SYS_DUP3, fdConsole, fd, 0)
	}
	p.call("close", unix.SYS_CLOSE, fdConsole)
	p.call("set host name", unix.SYS_SETHOSTNAME, p.s(pl.hostname), stage.Arg(len(pl.hostname)))
	p.call("set umask", unix.SYS_UMASK, 0)
	p.call("make mounts private", unix.SYS_MOUNT, p.s("none"), p.s("/"), 0, unix.MS_REC|unix.MS_PRIVATE)
}

// mountRoot mounts the file system where changeRoot expects it.
func (pl *plan) mountRoot(p *program) {
	root := p.s(pl.root)
	if pl.users.mapped() {
		pl.users.mapTrees(p, pl.lower)
	}
	if !pl.overlay {
		p.call("mount file system", unix.SYS_MOUNT, root, root, 0, unix.MS_BIND|unix.MS_REC)
		p.call("mount file system", unix.SYS_MOUNT, 0, root, 0, unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NODEV)
		return
	}
	p.call("change to instance directory", unix.SYS_CHDIR, p.s(pl.dir))
	overlay, options := p.s("overlay"), pl.overlayOptions()
	// Without it, the end of the container writes all that the file system of
	// the host has in memory, also of others, to the disk. Linux before 5.10
	// does not know the word.
	fast := p.may(int(unix.EINVAL), "mount overlay", unix.SYS_MOUNT, overlay, root, overlay, unix.MS_NODEV, p.s(options+volatile))
	slow := p.call("mount overlay", unix.SYS_MOUNT, overlay, root, overlay, unix.MS_NODEV, p.s(options))
	p.Calls[fast].IfZero = slow + 1
}

// volatile leaves it to the kernel when what a container has written goes to
// the disk, see Documentation/filesystems/overlayfs.rst: what is in memory
// survives all but the end of the host, which containers do not.
const volatile = ",volatile"

// overlayOptions are relative to the instance directory where they can: the
// kernel takes no more than a page.
func (pl *plan) overlayOptions() string {
	escape := strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)
	lower := make([]string, len(pl.lower))
	for i, dir := range pl.lower {
		if rel, err := filepath.Rel(pl.dir, dir); err == nil && len(pl.lower) > 1 && len(rel) < len(dir) {
			dir = rel
		}
		lower[i] = escape.Replace(dir)
	}
	options := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upperName + ",workdir=" + workName
	if pl.rootless {
		options += ",userxattr"
	}
	return options
}

// maxOptions is a page without the zero byte.
const maxOptions = 4095 - len(volatile)

// openTree takes hold of a file or directory of the host.
func (p *program) openTree(what, path string) int {
	return p.call("open "+what+" "+path, unix.SYS_OPEN_TREE, atCwd, p.s(path), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
}

// openAgent takes hold of the socket, which is hidden once the overlay is there.
func (pl *plan) openAgent(p *program) []int {
	if pl.cc == "" {
		return nil
	}
	return []int{p.openTree("backchannel", pl.cc)}
}

// openSources takes hold of what is of the host, before its paths are out of
// reach. It returns, for each, the call whose result is the descriptor.
func (pl *plan) openSources(p *program) (trees []int) {
	open := func(what, path string) { trees = append(trees, p.openTree(what, path)) }
	if pl.rootless {
		for _, d := range devices {
			open("device", "/dev/"+d.name)
		}
	}
	for _, f := range pl.fifos {
		open("fifo", f)
	}
	for _, v := range pl.volumes {
		open("volume", v.source)
	}
	if pl.uuid != "" {
		open("UUID", pl.uuid)
	}
	return trees
}

// runPreinit runs the program of the host, with everything that root may do in
// these namespaces, and waits for it.
func (pl *plan) runPreinit(p *program) {
	if pl.preinit == "" {
		return
	}
	status := p.Words(0)
	fork := p.call("fork", unix.SYS_CLONE, stage.Arg(unix.SIGCHLD))
	p.call("wait for preinit", unix.SYS_WAIT4, stage.Int(-1), status, 0)
	ok := p.call(stepPreinit, stage.Load, status)
	p.Calls[ok].IfZero = ok + 2
	p.Calls[fork].IfZero = p.call("run preinit "+pl.preinit, unix.SYS_EXECVE, p.s(pl.preinit), p.Strings([]string{pl.preinit}),
		p.Strings([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}))
}

const stepPreinit = "preinit"

// changeRoot makes the file system the root and lets go of the host's.
func (pl *plan) changeRoot(p *program) {
	p.call("change to file system", unix.SYS_CHDIR, p.s(pl.root))
	p.call("change root", unix.SYS_PIVOT_ROOT, p.s("."), p.s("."))
	if pl.rootless {
		// Only who sees all of them already may mount these again. Paths are
		// those of the new root, which is below the host's for now.
		mountKernel(p)
	}
	p.call("let go of the host's files", unix.SYS_UMOUNT2, p.s("."), unix.MNT_DETACH)
	p.call("change to root", unix.SYS_CHDIR, p.s("/"))
	if pl.users.mapped() {
		pl.users.own(p)
	}
}

func (p *program) mkdir(path string, mode uint32) {
	p.may(int(unix.EEXIST), "make "+path, unix.SYS_MKDIRAT, atCwd, p.s(path), stage.Arg(mode))
}

func (p *program) node(path string, mode uint32, major, minor uint32) {
	p.may(int(unix.EEXIST), "make "+path, unix.SYS_MKNODAT, atCwd, p.s(path), stage.Arg(mode), stage.Arg(unix.Mkdev(major, minor)))
}

func (p *program) mount(fstype, path string, flags uintptr, options string) {
	p.call("mount "+path, unix.SYS_MOUNT, p.s(fstype), p.s(path), p.s(fstype), stage.Arg(flags), p.s(options))
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// place makes a directory in the root of the file system for a mount. Were it a
// link, that might lead elsewhere once others are mounted, and mask would cover
// something else.
func (p *program) place(path string, mode uint32) {
	p.mkdir(path, mode)
	open := p.call(stepPlace+path, unix.SYS_OPENAT, atCwd, p.s(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	p.call("close", unix.SYS_CLOSE, 0)
	p.Calls[open].Out = []stage.Slot{stage.ArgOf(open+1, 0)}
}

const stepPlace = "use directory "

// mountKernel mounts the file systems that show the kernel.
func mountKernel(p *program) {
	p.place("/proc", 0o555)
	p.mount("proc", "/proc", quiet, "")
	p.place("/sys", 0o555)
	p.mount("sysfs", "/sys", quiet|unix.MS_RDONLY, "")
}

// devices are those that every container has.
var devices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// mountSystem mounts what every system has. Paths are inside from here on:
// links in the file system lead nowhere else.
func (pl *plan) mountSystem(p *program) {
	if !pl.rootless {
		mountKernel(p)
	}
	p.place("/dev", 0o755)
	p.mount("tmpfs", "/dev", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755,size=1m"+pl.users.options())
	for _, d := range devices {
		if pl.rootless {
			p.node("/dev/"+d.name, unix.S_IFREG|0o666, 0, 0) // a place for the host's
			continue
		}
		p.node("/dev/"+d.name, unix.S_IFCHR|0o666, d.major, d.minor)
	}
	for _, l := range [][2]string{{"pts/ptmx", "ptmx"}, {"/proc/self/fd", "fd"}, {"fd/0", "stdin"}, {"fd/1", "stdout"}, {"fd/2", "stderr"}} {
		p.call("link /dev/"+l[1], unix.SYS_SYMLINKAT, p.s(l[0]), atCwd, p.s("/dev/"+l[1]))
	}
	p.mkdir("/dev/pts", 0o755)
	p.call("mount /dev/pts", unix.SYS_MOVE_MOUNT, fdPts, p.s(""), atCwd, p.s("/dev/pts"), unix.MOVE_MOUNT_F_EMPTY_PATH)
	p.call("close", unix.SYS_CLOSE, fdPts)
	p.node("/dev/console", unix.S_IFREG|0o600, 0, 0)
	p.call("mount /dev/console", unix.SYS_MOUNT, p.s("/dev/pts/0"), p.s("/dev/console"), 0, unix.MS_BIND)
	p.mkdir("/dev/shm", 0o1777)
	p.mount("tmpfs", "/dev/shm", quiet, "mode=1777,size=64m")
}

// attachSources mounts what openSources took hold of.
func (pl *plan) attachSources(p *program, trees []int) {
	attach := func(errno int, name, path string) {
		i := p.may(errno, "mount "+name, unix.SYS_MOVE_MOUNT, 0, p.s(""), atCwd, p.s(path), unix.MOVE_MOUNT_F_EMPTY_PATH)
		p.Calls[trees[0]].Out = []stage.Slot{stage.ArgOf(i, 0), stage.ArgOf(i+1, 0)}
		p.call("close", unix.SYS_CLOSE, 0)
		trees = trees[1:]
	}
	if pl.cc != "" {
		attach(0, "/"+backchannelName, "/"+backchannelName)
	}
	if pl.rootless {
		for _, d := range devices {
			attach(0, "/dev/"+d.name, "/dev/"+d.name)
		}
	}
	if len(pl.fifos) > 0 {
		p.mkdir("/dev/fifos", 0o755)
	}
	for _, f := range pl.fifos {
		inside := "/dev/fifos/" + filepath.Base(f)
		p.node(inside, unix.S_IFREG|0o600, 0, 0)
		attach(0, inside, inside)
	}
	for _, v := range pl.volumes {
		p.parents(v)
		attach(0, "volume "+v.inside, v.inside)
	}
	if pl.uuid != "" {
		attach(stage.Ignore, "UUID", uuidPath)
		p.may(stage.Ignore, "make UUID read-only", unix.SYS_MOUNT, 0, p.s(uuidPath), 0, unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|quiet)
	}
}

// uuidPath is where programs look for the UUID of a machine.
const uuidPath = "/sys/class/dmi/id/product_uuid"

// parents makes the place for a volume. What the file system has there already
// is used.
func (p *program) parents(v volume) {
	path := ""
	names := strings.Split(strings.Trim(v.inside, "/"), "/")
	for i, name := range names {
		path += "/" + name
		if i == len(names)-1 && v.file {
			p.node(path, unix.S_IFREG|0o644, 0, 0)
			continue
		}
		p.mkdir(path, 0o755)
	}
}

// readOnly and hidden are paths that say or do too much about the host.
var (
	readOnly = []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi",
		"/proc/dynamic_debug", "/proc/mtrr", "/proc/asound", "/proc/driver"}
	hidden    = []string{"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup"}
	hiddenDir = []string{"/sys/firmware", "/sys/fs/cgroup", "/sys/kernel/debug", "/sys/kernel/security", "/sys/devices/virtual/powercap"}
)

// mask makes paths read-only or empty; those that this kernel lacks are passed by.
func mask(p *program) {
	missing := int(unix.ENOENT)
	for _, path := range readOnly {
		at := p.s(path)
		p.may(missing, "make read-only "+path, unix.SYS_MOUNT, at, at, 0, unix.MS_BIND|unix.MS_REC)
		p.may(missing, "make read-only "+path, unix.SYS_MOUNT, 0, at, 0, unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|quiet)
	}
	null, tmpfs := p.s("/dev/null"), p.s("tmpfs")
	for _, path := range hidden {
		p.may(missing, "hide "+path, unix.SYS_MOUNT, null, p.s(path), 0, unix.MS_BIND)
	}
	none := p.s("size=0,mode=555")
	for _, path := range hiddenDir {
		p.may(missing, "hide "+path, unix.SYS_MOUNT, tmpfs, p.s(path), tmpfs, unix.MS_RDONLY|quiet, none)
	}
}

// loopback sets lo up, as every system does at its start.
func (pl *plan) loopback(p *program) {
	ifreq := make([]byte, 40) // struct ifreq
	copy(ifreq, "lo")
	ifreq[unix.IFNAMSIZ] = unix.IFF_UP
	open := p.call("open socket", unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	p.call("set up lo", unix.SYS_IOCTL, 0, unix.SIOCSIFFLAGS, p.Bytes(ifreq))
	p.call("close", unix.SYS_CLOSE, 0)
	p.Calls[open].Out = []stage.Slot{stage.ArgOf(open+1, 0), stage.ArgOf(open+2, 0)}
}

// giveUp drops for good what init must not have.
func (pl *plan) giveUp(p *program) {
	p.may(stage.Ignore, "leave the session's keys", unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0)
	if pl.users.mapped() {
		pl.users.enter(p)
	}
	mask := keptMask()
	for c := range 64 {
		if mask&(1<<c) == 0 {
			p.may(int(unix.EINVAL), "drop capabilities", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, stage.Arg(c))
		}
	}
	header := p.Words(unix.LINUX_CAPABILITY_VERSION_3)
	low, high := stage.Arg(uint32(mask)), stage.Arg(mask>>32)
	// Two of struct __user_cap_data_struct: effective, permitted, inheritable.
	data := p.Words(low|low<<32, high<<32, high)
	p.call("drop capabilities", unix.SYS_CAPSET, header, data)
	p.may(int(unix.EINVAL), "drop capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	pl.becomeUser(p)
	if pl.users.mapped() || pl.UID != 0 || pl.GID != 0 {
		p.call("follow the keeper", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, stage.Arg(unix.SIGKILL)) // who changes users forgets it
	}
	p.call("forgo new privileges", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	p.call("set umask", unix.SYS_UMASK, 0o022)
	filter := make([]byte, 0, 8*len(pl.filter))
	for _, i := range pl.filter {
		filter = append(filter, byte(i.Op), byte(i.Op>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	fprog := p.Words(stage.Arg(len(pl.filter)), p.Bytes(filter)) // struct sock_fprog
	p.call("filter system calls", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, fprog)
}

// enterDir changes to the working directory, and makes it if it is missing.
func (pl *plan) enterDir(p *program) {
	if pl.Dir == "" || pl.Dir == "/" {
		return
	}
	p.parents(volume{inside: filepath.Clean(pl.Dir)})
	p.call("change to working directory "+pl.Dir, unix.SYS_CHDIR, p.s(pl.Dir))
}

// becomeUser gives up root's rights for those of another user, who gets the
// console.
func (pl *plan) becomeUser(p *program) {
	var groups []stage.Arg
	for i := 0; i < len(pl.Groups); i += 2 { // gid_t has 4 bytes
		word := stage.Arg(pl.Groups[i])
		if i+1 < len(pl.Groups) {
			word |= stage.Arg(pl.Groups[i+1]) << 32
		}
		groups = append(groups, word)
	}
	if len(groups) == 0 {
		// In a user namespace without further users, nobody may.
		p.may(int(unix.EPERM), "drop groups", unix.SYS_SETGROUPS, 0, 0)
	} else {
		p.call("set groups", unix.SYS_SETGROUPS, stage.Arg(len(pl.Groups)), p.Words(groups...))
	}
	if pl.UID != 0 {
		p.call("give terminal to user", unix.SYS_FCHOWN, 0, stage.Arg(pl.UID), stage.Int(-1))
	}
	if pl.GID != 0 {
		p.call("set group", unix.SYS_SETRESGID, stage.Arg(pl.GID), stage.Arg(pl.GID), stage.Arg(pl.GID))
	}
	if pl.UID != 0 {
		p.call("set user", unix.SYS_SETRESUID, stage.Arg(pl.UID), stage.Arg(pl.UID), stage.Arg(pl.UID))
	}
}

// execute says that all is ready, waits for the start and becomes init.
func (pl *plan) execute(p *program) {
	path := p.s(pl.Args[0])
	p.call(stepInit, unix.SYS_FACCESSAT, atCwd, path, unix.X_OK)
	p.call("report", unix.SYS_WRITE, fdReport, p.Words(recordReady, 0), stage.RecordSize)
	p.call("wait for the start", unix.SYS_READ, fdStart, p.scratch, 8)
	p.call(stepInit, unix.SYS_EXECVE, path, p.Strings(pl.Args), p.Strings(pl.Env))
}

const stepInit = "init"

// failed words the failure of the program.
func (pl *plan) failed(f *stage.Failure) string {
	switch {
	case f.Name == stepPreinit:
		ws := unix.WaitStatus(f.Errno)
		if ws.Signaled() {
			return fmt.Sprintf("preinit %s was killed by %v", pl.preinit, ws.Signal())
		}
		return fmt.Sprintf("preinit %s ended with exit status %d", pl.preinit, ws.ExitStatus())
	}
	return f.Error()
}
