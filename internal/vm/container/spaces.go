package container

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	// spacesAhead is how many network namespaces wait for containers. The kernel
	// makes them under locks that the removal of others holds for milliseconds.
	spacesAhead = 4
	// spacesIdle is how long they wait.
	spacesIdle = 10 * time.Second
)

// spacePool makes network namespaces, after the first one some ahead. One lasts as
// long as a process is in it or its file is open.
type spacePool struct {
	wg sync.WaitGroup // the goroutine that makes some, and the timer

	mu     sync.Mutex // guards the fields below
	ready  []*os.File
	making bool
	closed bool
	idle   *time.Timer
}

// take returns one that nobody has used.
func (s *spacePool) take() (*os.File, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errs.New(errs.State, "containers are being shut down")
	}
	var file *os.File
	if n := len(s.ready); n > 0 {
		file, s.ready = s.ready[n-1], s.ready[:n-1]
	}
	if !s.making {
		s.making = true
		s.wg.Go(s.fill)
	}
	s.mu.Unlock()
	if file != nil {
		return file, nil
	}
	return makeSpace()
}

// fill makes namespaces until enough wait. A failure is that of the next who
// needs one.
func (s *spacePool) fill() {
	for {
		s.mu.Lock()
		if s.closed || len(s.ready) >= spacesAhead {
			s.making = false
			s.dropLaterLocked()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		file, err := makeSpace()
		s.mu.Lock()
		if err != nil {
			s.making = false
			s.mu.Unlock()
			return
		}
		s.ready = append(s.ready, file)
		s.mu.Unlock()
	}
}

// dropLaterLocked has what waits removed when nobody wants it for a while.
func (s *spacePool) dropLaterLocked() {
	if s.closed {
		return
	}
	if s.idle != nil && s.idle.Stop() {
		s.wg.Done()
	}
	s.wg.Add(1)
	s.idle = time.AfterFunc(spacesIdle, func() {
		defer s.wg.Done()
		_ = s.drop() // closing a namespace does not fail
	})
}

func (s *spacePool) drop() error {
	s.mu.Lock()
	ready := s.ready
	s.ready = nil
	s.mu.Unlock()
	var failed []error
	for _, file := range ready {
		failed = append(failed, file.Close())
	}
	return errors.Join(failed...)
}

// Close removes those that wait. Others are their owners'.
func (s *spacePool) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.idle != nil && s.idle.Stop() {
		s.wg.Done()
	}
	s.idle = nil
	s.mu.Unlock()
	s.wg.Wait()
	return s.drop()
}

// makeSpace makes one on a thread that leaves its own for a moment.
func makeSpace() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result, 1)
	go func() {
		// Unless the thread comes back, it must not serve others, and ends with
		// this goroutine.
		runtime.LockOSThread()
		file, err, back := newSpace()
		made <- result{file, err}
		if back {
			runtime.UnlockOSThread()
		}
	}()
	r := <-made
	return r.file, r.err
}

func newSpace() (file *os.File, err error, back bool) {
	const path = "/proc/thread-self/ns/net"
	was, err := os.Open(path)
	if err != nil {
		return nil, err, true
	}
	defer was.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, errs.New(errs.KindOf(permission(err)), "cannot make a network namespace: %w", err), true
	}
	file, err = os.Open(path)
	back = unix.Setns(int(was.Fd()), unix.CLONE_NEWNET) == nil
	return file, err, back
}

// permission gives EPERM its kind.
func permission(err error) error {
	if err == unix.EPERM {
		return errs.Wrap(errs.Permission, err)
	}
	return err
}
