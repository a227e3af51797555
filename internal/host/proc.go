package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ProcSpec describes a child process that may outlive this one.
type ProcSpec struct {
	Path string   // absolute path of the program
	Args []string // without the program's name
	Dir  string   // working directory, "" for ours
	Env  []string // nil for ours
	// Output takes stdout and stderr; nil for /dev/null. The caller keeps it.
	Output *os.File
	Files  []*os.File // descriptors 3, 4 and so on; the caller keeps them
}

// Proc is a process in its own session, watched through a pidfd: a pid that
// was reused is never signalled, and waiting costs no thread.
type Proc struct {
	pid   int
	child bool // ours to reap; an adopted process is somebody else's
	fd    *os.File
	done  chan struct{}
	idle  chan struct{} // closed when the watcher has ended

	mu     sync.Mutex
	status ProcStatus
}

// ProcStatus tells how a process ended.
type ProcStatus struct {
	Known  bool // false for an adopted process: only its parent learns more
	Code   int  // exit code, when Signal is 0
	Signal syscall.Signal
}

// String words the status as the shell does.
func (s ProcStatus) String() string {
	switch {
	case !s.Known:
		return "ended"
	case s.Signal != 0:
		return fmt.Sprintf("killed by signal %d (%v)", int(s.Signal), s.Signal)
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// OK reports a normal end, as far as is known.
func (s ProcStatus) OK() bool { return s.Signal == 0 && s.Code == 0 }

// StartProc starts the process with stdin from /dev/null. It inherits nothing
// but what is given, survives this process, and dumps no core (a core of a VM is as large
// as its memory).
func StartProc(s ProcSpec) (*Proc, error) {
	pid, fd, err := StartChild(s)
	if err != nil {
		return nil, err
	}
	return newProc(pid, fd, true)
}

// StartChild is StartProc for who watches and reaps the process on their own:
// it returns the process id and a pidfd.
func StartChild(s ProcSpec) (pid, fd int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, -1, err
	}
	defer null.Close()
	out := null
	if s.Output != nil {
		out = s.Output
	}
	if s.Env == nil {
		s.Env = os.Environ()
	}
	// What we were started with ourselves must not reach the child either. Our
	// own descriptors are close-on-exec already; older kernels lack the call.
	_ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	fd = -1
	files := []uintptr{null.Fd(), out.Fd(), out.Fd()}
	for _, f := range s.Files {
		conn, err := f.SyscallConn() // unlike Fd, it leaves the descriptor non-blocking
		if err == nil {
			err = conn.Control(func(fd uintptr) { files = append(files, fd) })
		}
		if err != nil {
			return 0, -1, err
		}
	}
	pid, err = syscall.ForkExec(s.Path, append([]string{s.Path}, s.Args...), &syscall.ProcAttr{
		Dir: s.Dir, Env: s.Env,
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &fd},
	})
	if err != nil {
		return 0, -1, &os.PathError{Op: "start", Path: s.Path, Err: err}
	}
	runtime.KeepAlive(s.Files)
	// Best effort: without the limit everything works, cores are just larger.
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	if fd < 0 { // kernel without CLONE_PIDFD; the pid is ours until we reap it
		if fd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			return 0, -1, fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	return pid, fd, nil
}

// AdoptProc watches a running process that somebody else started. The caller
// has made sure that pid still is the process it means.
func AdoptProc(pid int) (*Proc, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return newProc(pid, fd, false)
}

func newProc(pid, fd int, child bool) (*Proc, error) {
	// A non-blocking descriptor is watched by the runtime's poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	p := &Proc{pid: pid, child: child, fd: os.NewFile(uintptr(fd), "pidfd"),
		done: make(chan struct{}), idle: make(chan struct{})}
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return nil, err
	}
	go p.watch(conn)
	return p, nil
}

// watch waits for the end of the process or for Close.
func (p *Proc) watch(conn syscall.RawConn) {
	defer close(p.idle)
	ended := false
	err := conn.Read(func(fd uintptr) bool {
		ended = p.reap(int(fd))
		return ended
	})
	if err == nil && ended {
		close(p.done)
	}
}

// reap collects the exit status, without blocking.
func (p *Proc) reap(fd int) bool {
	if !p.child {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n == 1
	}
	var ws unix.WaitStatus
	pid, err := unix.Wait4(p.pid, &ws, unix.WNOHANG, nil)
	if errors.Is(err, unix.EINTR) || (err == nil && pid == 0) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		return true
	}
	p.status = ProcStatus{Known: true}
	if ws.Signaled() {
		p.status.Signal = ws.Signal()
	} else {
		p.status.Code = ws.ExitStatus()
	}
	return true
}

// Pid returns the process id.
func (p *Proc) Pid() int { return p.pid }

// Done is closed when the process has ended and been waited for.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Status tells how the process ended, after Done.
func (p *Proc) Status() ProcStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Signal sends sig. A process that has ended already is no error.
func (p *Proc) Signal(sig syscall.Signal) error {
	conn, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := conn.Control(func(fd uintptr) {
		sent = unix.PidfdSendSignal(int(fd), sig, nil, 0)
	}); err != nil {
		select {
		case <-p.done:
			return nil
		default:
			return err
		}
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return sent
}

// Kill ends the process by force and waits until it is gone. It gives up when
// ctx ends: a process in an uninterruptible sleep stays.
func (p *Proc) Kill(ctx context.Context) error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d does not end: %w", p.pid, ctx.Err())
	}
}

// KillWithin is Kill with a limit of its own, for what must end though the
// caller's patience has. It returns when gone is closed, which says that the
// owner has taken note of the end, or released, that it will not.
func (p *Proc) KillWithin(limit time.Duration, gone, released <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := p.Kill(ctx); err != nil {
		return err
	}
	select {
	case <-gone:
		return nil
	case <-released:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("end of process %d: %w", p.Pid(), ctx.Err())
	}
}

// Close stops watching and leaves a running process alone. Done stays open
// then.
func (p *Proc) Close() error {
	err := p.fd.Close()
	<-p.idle
	return err
}
