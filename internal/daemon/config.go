package daemon

import (
	"time"
)

// Config is what a daemon is started with.
type Config struct {
	Base      string // base directory
	Files     string // files directory, absolute
	Group     string // group that may use the socket, "" for the owner only
	VLANRange string // "min-max"
	VNCListen string // address on which screens can be reached
	// AbsSnapshot makes disk snapshots name their backing file absolutely.
	AbsSnapshot bool
	Force       bool // end what an earlier daemon left running
	// Args are the command line flags for the command `args`, in order.
	Args func() (names, values []string)
}

// quitter turns the command `quit` into the end of the daemon.
type quitter struct {
	quit chan struct{} // closed once
	now  chan time.Duration
}

func newQuitter() *quitter {
	return &quitter{quit: make(chan struct{}), now: make(chan time.Duration, 1)}
}

// Quit asks for the end after a delay. Only the first asker is heard.
func (q *quitter) Quit(delay time.Duration) {
	select {
	case q.now <- delay:
	default:
	}
}

// run closes quit when the delay asked for has passed, or stop is closed.
func (q *quitter) run(stop <-chan struct{}) {
	select {
	case d := <-q.now:
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-stop:
		}
	case <-stop:
	}
	close(q.quit)
}
