// Package rootless lets an ordinary user run minimega: the program starts
// itself again as root of user, network, mount and process namespaces of its
// own (user_namespaces(7)), in which it may make bridges, interfaces and
// containers. What is in them ends with it, and the host is not reached.
//
// The program runs three times: the outer one waits and passes signals on, the
// first in the namespaces mounts and reaps, and the one that it starts is the
// minimega that was asked for.
package rootless

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv tells the program which of the three it is.
const stageEnv = "MINIMEGA_ROOTLESS"

// The values of stageEnv: without any it is the outer one.
const (
	stageMap   = "map" // waits for its user to be mapped
	stageFirst = "first"
	stageRun   = "run"
)

// mapPipe is the descriptor of the first in the namespaces on which the outer
// one says that users are mapped, and that ends with the outer one.
const mapPipe = 3

// What the outer one says: that users are mapped, and whether a control group
// is lent, too.
const (
	goOn           = 1
	goOnWithGroups = 2
)

// Notice is what a user should know.
const Notice = "Not root: this minimega has users, processes and networks of its own, which end with it. " +
	"Connections to the networks of this host need root; so do limits of CPUs and memory of containers and pausing them, " +
	"unless it was started by `systemd-run --user --scope -p Delegate=yes minimega`."

// Enter does what must be done before anything else: nothing for root. For
// others it returns the exit status of a minimega in namespaces, and done.
func Enter(stdout, stderr io.Writer) (status int, done bool) {
	var err error
	switch os.Getenv(stageEnv) {
	case stageRun:
		return 0, false
	case stageMap:
		err = again()
	case stageFirst:
		status, err = first()
	default:
		if os.Geteuid() == 0 {
			return 0, false
		}
		fmt.Fprintln(stdout, Notice)
		status, err = outer()
	}
	if err != nil {
		fmt.Fprintln(stderr, "minimega:", err)
		return 1, true
	}
	return status, true
}

// Inside reports whether this is the minimega in the namespaces.
func Inside() bool { return os.Getenv(stageEnv) == stageRun }

// outer runs the program in namespaces, where there are further users if those
// can be mapped.
func outer() (status int, err error) {
	if ranges := userRanges(); ranges != nil {
		status, err = inside(ranges)
		if !errors.Is(err, errMapping) {
			return status, err
		}
	}
	return inside(nil)
}

// inside starts the program in namespaces and waits for it.
func inside(ranges *ranges) (status int, err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer write.Close()
	namespaces, group := uintptr(unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWNET|unix.CLONE_NEWPID|unix.CLONE_NEWIPC), delegated()
	if group != "" {
		namespaces |= unix.CLONE_NEWCGROUP
	}
	p, err := start(stageMap, namespaces, read)
	err = errors.Join(err, read.Close())
	if p == nil {
		return 1, explain("/proc/sys", fmt.Errorf("cannot make a user namespace, which minimega needs without root: %w", err))
	}
	stop := pass(p)
	defer stop()
	if err := mapUsers(p.Pid, ranges); err != nil {
		_ = p.Kill()
		_, _ = p.Wait()
		return 1, explain("/proc/sys", err)
	}
	word := []byte{goOn}
	if group != "" {
		if back, err := stepAside(group, p.Pid); err == nil { // else it goes without
			defer back()
			word[0] = goOnWithGroups
		}
	}
	if _, err := write.Write(word); err != nil {
		return 1, err
	}
	state, err := p.Wait()
	if err != nil {
		return 1, err
	}
	return exitStatus(state.Sys().(syscall.WaitStatus)), nil
}

// again executes the program once more: now that it is mapped to root, it gets
// all capabilities by that.
func again() error {
	word := make([]byte, 1)
	if n, err := os.NewFile(mapPipe, "pipe").Read(word); n != 1 {
		return fmt.Errorf("wait for users to be mapped: %w", err)
	}
	env := environ(stageFirst)
	if word[0] == goOnWithGroups {
		env = append(env, groupsEnv+"=1")
	}
	return unix.Exec("/proc/self/exe", os.Args, env)
}

// first readies the namespaces and is their first process: it ends when the
// minimega that it starts has, and all others with it.
func first() (status int, err error) {
	if err := prepare(); err != nil {
		return 1, explain("/proc/sys", err)
	}
	unix.CloseOnExec(mapPipe)
	p, err := start(stageRun, 0)
	if err != nil {
		return 1, err
	}
	stop := pass(p)
	defer stop()
	go func() {
		// It ends with the process. The outer one is gone: nobody waits for us.
		_, _ = os.NewFile(mapPipe, "pipe").Read(make([]byte, 1))
		_ = p.Signal(unix.SIGTERM)
	}()
	return reap(p.Pid)
}

// reap waits for all children, also those of others that ended, until that one
// has ended.
func reap(child int) (status int, err error) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for minimega: %w", err)
		case pid == child:
			return exitStatus(syscall.WaitStatus(ws)), nil
		}
	}
}

func exitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// environ is ours with another stage.
func environ(stage string) []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, stageEnv+"=") {
			env = append(env, e)
		}
	}
	return append(env, stageEnv+"="+stage)
}
