package api

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchAfter is how long a command runs before its client is watched: short
// commands, nearly all, pay only for a timer.
const watchAfter = 20 * time.Millisecond

// watch notices that the client of a running command went away. It looks for
// a hang-up of the whole connection (POLLHUP): a client that only closed its
// sending side (POLLRDHUP) still waits for its answer.
type watch struct {
	raw   syscall.RawConn
	rearm func(on bool) // lets reads of the connection wait, or not
	gone  func()
	timer *time.Timer
	ended chan struct{}
}

// newWatch watches c. rearm(false) must make a waiting read of c fail at once.
func newWatch(c *net.UnixConn, rearm func(on bool), gone func()) (*watch, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &watch{raw: raw, rearm: rearm, gone: gone, ended: make(chan struct{}, 1)}
	w.timer = time.AfterFunc(time.Hour, w.wait)
	w.timer.Stop()
	return w, nil
}

// start begins to watch. Nobody reads from the connection until stop.
func (w *watch) start() { w.timer.Reset(watchAfter) }

// stop ends what start began and returns when it has ended.
func (w *watch) stop() {
	if w.timer.Stop() {
		return
	}
	w.rearm(false)
	<-w.ended
	w.rearm(true)
}

// wait sleeps in the runtime's poller, not in a thread, until the client hangs
// up or stop is called. It runs on the timer's goroutine.
func (w *watch) wait() {
	hung := false
	err := w.raw.Read(func(fd uintptr) bool {
		hung = hungUp(fd)
		return hung
	})
	if err == nil && hung {
		w.gone()
	}
	w.ended <- struct{}{}
}

func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
