package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is init, held by a pidfd: a pid that was reused is never meant.
type process struct {
	pid int
	fd  int
}

func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return &process{pid, fd}, nil
}

// close is called once; nil has nothing to close.
func (p *process) close() error {
	if p == nil {
		return nil
	}
	return unix.Close(p.fd)
}

// kill ends the process and with it all in the container.
func (p *process) kill() error {
	err := unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// alive returns an error once the process has gone, and its pid may be another's.
func (p *process) alive() error { return unix.PidfdSendSignal(p.fd, 0, nil, 0) }

// killed reports whether SIGKILL waits for the process to take it.
func (p *process) killed() (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err = errors.Join(err, p.alive()); err != nil { // and so the text is about it
		return false, err
	}
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		pending, err := strconv.ParseUint(field(text, name), 16, 64)
		if err != nil {
			return false, fmt.Errorf("pending signals of process %d: %w", p.pid, err)
		}
		if pending&(1<<(unix.SIGKILL-1)) != 0 {
			return true, nil
		}
	}
	return false, nil
}

// field returns a field of /proc/PID/status, "" for one that is not there.
func field(status []byte, name string) string {
	_, after, _ := strings.Cut(string(status), "\n"+name+":")
	word, _, _ := strings.Cut(after, "\n")
	return strings.TrimSpace(word)
}

// root is the path of its root directory.
func (p *process) root() string { return fmt.Sprintf("/proc/%d/root", p.pid) }

// borrow gets a descriptor of another process (pidfd_getfd(2)).
func borrow(pidfd, fd int, name string) (*os.File, error) {
	n, err := unix.PidfdGetfd(pidfd, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("get %s from the keeper: %w", name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}
