package container

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// keeper is the process of a container on the host, watched by the poller.
type keeper struct {
	pid    int
	fd     int  // pidfd
	child  bool // ours to reap; an adopted one is somebody else's
	remove func()
	done   chan struct{} // closed when it has ended

	mu   sync.Mutex // guards next
	next func()     // to be called at the end
}

func startKeeper(p *poller, s host.ProcSpec) (*keeper, error) {
	pid, fd, err := host.StartChild(s)
	if err != nil {
		return nil, err
	}
	k, err := newKeeper(p, pid, fd, true)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // not reaped yet: it is this process
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return k, err
}

// adoptKeeper watches one that another daemon started. The caller finds out
// then whether pid is one.
func adoptKeeper(p *poller, pid int) (*keeper, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, errs.New(errs.NotFound, "watch process %d: %w", pid, err)
	}
	return newKeeper(p, pid, fd, false)
}

func newKeeper(p *poller, pid, fd int, child bool) (*keeper, error) {
	k := &keeper{pid: pid, fd: fd, child: child, done: make(chan struct{})}
	var err error
	if k.remove, err = p.add(fd, k.ended); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return k, nil
}

// ended is called by the poller when the process has, and asks for no more.
func (k *keeper) ended() answer {
	if k.child {
		pid, err := unix.Wait4(k.pid, nil, unix.WNOHANG, nil)
		if err == nil && pid == 0 || errors.Is(err, unix.EINTR) {
			return goOn
		}
	}
	k.mu.Lock()
	next := k.next
	k.next = nil
	close(k.done)
	k.mu.Unlock()
	if next != nil {
		next()
	}
	return end
}

// then has f called once the process has ended. f must not wait for anything.
func (k *keeper) then(f func()) {
	k.mu.Lock()
	select {
	case <-k.done:
	default:
		k.next = f
		f = func() {}
	}
	k.mu.Unlock()
	f()
}

// kill ends the process by force and waits until it is gone.
func (k *keeper) kill(ctx context.Context) error {
	if err := unix.PidfdSendSignal(k.fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", k.pid, err)
	}
	select {
	case <-k.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("process %d does not end: %w", k.pid, ctx.Err())
	}
}

// close stops watching and leaves a running process alone. What then has asked
// for is not called any more.
func (k *keeper) close() error {
	k.remove()
	return unix.Close(k.fd)
}
