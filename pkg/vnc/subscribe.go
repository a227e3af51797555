package vnc

import "sync"

// queueLen is how many events a subscriber may be behind: half a minute of a
// moving mouse.
const queueLen = 4096

// subscriber hands events to one callback, in order, on its own goroutine.
type subscriber struct {
	call func(Event)
	done chan struct{} // closed when the callback will not be called again

	mu      sync.Mutex // guards the fields below
	queue   chan Event
	closed  bool
	dropped uint64
}

// Subscribe calls fn for every input that passes from now on, one at a time
// and in order. A callback that cannot keep up loses events, which Dropped of
// the next one counts; it never slows the connection down. cancel delivers
// what is still queued and returns when fn is not running any more; it must
// not be called by fn. Close of the proxy cancels, too.
func (p *Proxy) Subscribe(fn func(Event)) (cancel func()) {
	s := &subscriber{call: fn, done: make(chan struct{}), queue: make(chan Event, queueLen)}
	go s.run()
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.subs[s] = struct{}{}
	}
	p.mu.Unlock()
	if closed {
		s.end()
	}
	return func() {
		p.mu.Lock()
		delete(p.subs, s)
		p.mu.Unlock()
		s.end()
	}
}

// publish gives e to all subscribers. It never blocks on them.
func (p *Proxy) publish(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.subs {
		s.put(e)
	}
}

func (s *subscriber) run() {
	defer close(s.done)
	for e := range s.queue {
		s.call(e)
	}
}

func (s *subscriber) put(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	e.Dropped = s.dropped
	select {
	case s.queue <- e:
	default:
		s.dropped++
	}
}

// end delivers what is queued, and waits. It may be called more than once.
func (s *subscriber) end() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.mu.Unlock()
	<-s.done
}
