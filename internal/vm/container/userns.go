package container

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host/stage"
)

// Users of containers in user namespaces: each gets a range that no system
// gives to anybody else (systemd's UIDS-GIDS.md), as far as there are enough.
const (
	userFirst  = 0x70000000
	userRange  = 1 << 16
	userRanges = 0xfff
)

// userBase is the user of the host that is root in a container.
func userBase(base string, id int) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(base)) // never fails
	return userFirst + (h.Sum32()+uint32(id))%userRanges*userRange
}

// makeUserSpace makes a network namespace that belongs to a user namespace,
// which has the range of users that starts at first: a process is born in both,
// and ends when they can be opened.
func makeUserSpace(first uint32) (*os.File, error) {
	var p stage.Program
	p.Add(stage.Call{Name: "wait", Nr: unix.SYS_READ, Args: [6]stage.Arg{0, p.Words(0), 1}})
	p.Add(stage.Call{Name: "exit", Nr: unix.SYS_EXIT_GROUP})
	image, err := p.Open(imageName)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	maps := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(first), Size: userRange}}
	cmd := &exec.Cmd{Path: "/proc/self/fd/3", Args: []string{"userns"}, Dir: "/", Env: []string{}, ExtraFiles: []*os.File{image},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: maps, GidMappings: maps,
			GidMappingsEnableSetgroups: true}}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		_ = hold.Close()
		return nil, errs.WithRemedy(errs.New(errs.KindOf(permission(executable(err))), "cannot make a user namespace: %w", err),
			"sysctl user.max_user_namespaces=10000, or set `vm config userns false`")
	}
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	_ = hold.Close()
	_ = cmd.Wait() // it ends as it likes
	return file, err
}

// owner opens the user namespace that a network namespace belongs to
// (ioctl_ns(2)).
func owner(space *os.File) (*os.File, error) {
	raw, err := space.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(ns uintptr) { fd, err = unix.IoctlRetInt(int(ns), unix.NS_GET_USERNS) }); e != nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("the user namespace of a network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "userns"), nil
}

// users maps the users of a container. The zero value maps none.
type users struct {
	fd    stage.Arg // of the user namespace
	first uint32    // what root is outside
}

func (u users) mapped() bool { return u.fd != 0 }

const stepMap = "map users of "

// mapTrees covers directories, in this mount namespace, by themselves with their
// users mapped: who is root on the disk is root in the container.
func (u users) mapTrees(p *program, dirs []string) {
	attr := p.Words(unix.MOUNT_ATTR_IDMAP, 0, 0, u.fd) // struct mount_attr
	const size = 4 * 8
	at, empty := make([]int, len(dirs)), p.s("")
	for i, dir := range dirs {
		open := p.call(stepMap+dir, unix.SYS_OPEN_TREE, atCwd, p.s(dir), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		set := p.call(stepMap+dir, unix.SYS_MOUNT_SETATTR, 0, empty, unix.AT_EMPTY_PATH, attr, size)
		p.Calls[open].Out = []stage.Slot{stage.ArgOf(set, 0)}
		at[i] = open
	}
	for i, dir := range dirs {
		move := p.call(stepMap+dir, unix.SYS_MOVE_MOUNT, 0, empty, atCwd, p.s(dir), unix.MOVE_MOUNT_F_EMPTY_PATH)
		p.call("close", unix.SYS_CLOSE, 0)
		p.Calls[at[i]].Out = append(p.Calls[at[i]].Out, stage.ArgOf(move, 0), stage.ArgOf(move+1, 0))
	}
}

// own has what is made from here on belong to the container's root, with the
// rights of the host's.
func (u users) own(p *program) {
	const noFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP, see capabilities(7)
	p.call("keep rights", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, noFixup)
	p.call("set owner of files", unix.SYS_SETFSGID, stage.Arg(u.first))
	p.call("set owner of files", unix.SYS_SETFSUID, stage.Arg(u.first))
}

// enter makes the process the root of the user namespace, who has no rights
// outside of it.
func (u users) enter(p *program) {
	p.call("enter user namespace", unix.SYS_SETNS, u.fd, unix.CLONE_NEWUSER)
	p.call("close", unix.SYS_CLOSE, u.fd)
	p.call("become root of the user namespace", unix.SYS_SETRESGID, 0, 0, 0)
	p.call("become root of the user namespace", unix.SYS_SETRESUID, 0, 0, 0)
}

// notMapped says why a file system cannot be used in a user namespace.
func notMapped(path string, err error) error {
	return errs.WithRemedy(errs.New(errs.Unsupported, "the file system that holds %s cannot map users (ext4, xfs and btrfs can, tmpfs from Linux 6.3 on): %w", path, err),
		"put it elsewhere, or set `vm config userns false`")
}

// options are those of a tmpfs.
func (u users) options() string {
	if !u.mapped() {
		return ""
	}
	return ",uid=" + decimal(u.first) + ",gid=" + decimal(u.first)
}

// give makes a file of the host the container's root's.
func (u users) give(path string) error {
	if !u.mapped() {
		return nil
	}
	return os.Lchown(path, int(u.first), int(u.first))
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
