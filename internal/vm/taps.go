package vm

import (
	"context"
	"sync"
)

// tapRemover removes the ports of machines that end at about the same time in
// one go: the kernel waits as long for a thousand devices as for one.
type tapRemover struct {
	network Network
	turn    chan struct{} // who holds it removes

	mu   sync.Mutex // guards next
	next *removal
}

// removal is a set of ports on their way out.
type removal struct {
	names []string
	done  chan struct{}
	err   error // valid once done
}

func newTapRemover(n Network) *tapRemover {
	return &tapRemover{network: n, turn: make(chan struct{}, 1)}
}

// remove returns when the ports have gone.
func (r *tapRemover) remove(names []string) error {
	r.mu.Lock()
	if r.next == nil {
		r.next = &removal{done: make(chan struct{})}
	}
	mine := r.next
	mine.names = append(mine.names, names...)
	r.mu.Unlock()
	for {
		select {
		case <-mine.done:
			if mine.err != nil && len(mine.names) > len(names) {
				return r.network.Delete(context.Background(), names...) // perhaps another's failed
			}
			return mine.err
		case r.turn <- struct{}{}:
			r.removeNext()
			<-r.turn
		}
	}
}

func (r *tapRemover) removeNext() {
	r.mu.Lock()
	next := r.next
	r.next = nil
	r.mu.Unlock()
	if next != nil {
		next.err = r.network.Delete(context.Background(), next.names...)
		close(next.done)
	}
}
