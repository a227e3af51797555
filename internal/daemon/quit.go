package daemon

import "time"

// quitter turns the command `quit` into the end of the daemon.
type quitter struct {
	asked chan time.Duration
	quit  chan struct{} // closed when it is time
}

func newQuitter() *quitter {
	return &quitter{asked: make(chan time.Duration, 1), quit: make(chan struct{})}
}

// Quit asks for the end after a delay. Only the first asker is heard.
func (q *quitter) Quit(delay time.Duration) {
	select {
	case q.asked <- delay:
	default:
	}
}

// run closes quit when the delay asked for has passed. It returns then, or
// when stop is closed.
func (q *quitter) run(stop <-chan struct{}) {
	var delay time.Duration
	select {
	case delay = <-q.asked:
	case <-stop:
		return
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		close(q.quit)
	case <-stop:
	}
}
