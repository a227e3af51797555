package container

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for the consoles of all containers in one goroutine: three for
// each container would need more memory than all the rest of it.
type poller struct {
	epoll, wake int
	done        chan struct{}
	lack        shortage // of those who ask for later

	mu      sync.Mutex // guards the fields below
	ready   map[int32]func() answer
	next    int32
	stopped bool
}

// answer is what is to become of a descriptor that could be read.
type answer int

const (
	goOn  answer = iota
	end          // it is not looked at any more
	later        // nor for a moment: something is lacking that may come back
)

// recovery is that moment.
const recovery = 100 * time.Millisecond

func newPoller(log *slog.Logger) (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), unix.Close(epoll))
	}
	p := &poller{epoll: epoll, wake: wake, done: make(chan struct{}), lack: shortage{log: log}, ready: map[int32]func() answer{}, next: 1}
	go p.run()
	return p, nil
}

// add calls ready whenever fd can be read, until it returns end or the
// descriptor is closed. ready must not block. The returned function, to be
// called before that, makes sure that it is not called any more once it has come
// back.
func (p *poller) add(fd int, ready func() answer) (remove func(), err error) {
	p.mu.Lock()
	id := p.next
	p.next = max(1, p.next+1) // the descriptors of one moment are far fewer
	p.ready[id] = ready
	p.mu.Unlock()
	forget := func() (was bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		was = p.ready[id] != nil
		delete(p.ready, id)
		return was
	}
	// The number of the descriptor may be another's by the time an event is
	// looked at; ours is not.
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: id, Pad: int32(fd)}); err != nil {
		forget()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return func() {
		if forget() { // closing is not enough where a keeper has the same file open
			_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, fd, nil) // it is in there
		}
	}, nil
}

func (p *poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // cannot happen while both descriptors are open
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == 0 {
				return
			}
			p.dispatch(e)
		}
	}
}

// dispatch calls under the lock, so that remove is final.
func (p *poller) dispatch(e unix.EpollEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ready := p.ready[e.Fd]
	if ready == nil {
		return
	}
	switch ready() {
	case end:
		_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, int(e.Pad), nil) // closed already, or nothing more to come
		delete(p.ready, e.Fd)
	case later:
		p.listenLocked(e, 0)
		time.AfterFunc(recovery, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.ready[e.Fd] != nil && !p.stopped { // so the descriptor is still the one that it was
				p.listenLocked(e, unix.EPOLLIN)
			}
		})
	}
}

func (p *poller) listenLocked(e unix.EpollEvent, events uint32) {
	_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_MOD, int(e.Pad), &unix.EpollEvent{Events: events, Fd: e.Fd, Pad: e.Pad})
}

// Close ends the goroutine. Consoles must have been closed.
func (p *poller) Close() error {
	p.mu.Lock()
	was := p.stopped
	p.stopped = true
	p.mu.Unlock()
	if was {
		return nil
	}
	_, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if err == nil {
		<-p.done
	}
	return errors.Join(err, unix.Close(p.epoll), unix.Close(p.wake))
}
