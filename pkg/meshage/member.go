package meshage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// members is who can be reached, and who wants to know.
type members struct {
	self peer.ID

	mu       sync.Mutex
	byID     map[peer.ID]*member
	gone     map[string]time.Time // names of those who left, and when
	watchers map[*watcher]struct{}
	closed   bool
}

// member is one node. What depends on it uses ctx, which ends with ErrLeft as
// its cause.
type member struct {
	Member
	id    peer.ID
	addrs []string
	ctx   context.Context
	leave context.CancelCauseFunc
}

// maxGone bounds how many names of former members are remembered.
const maxGone = 1024

func newMembers(self peer.ID) *members {
	return &members{self: self, byID: map[peer.ID]*member{}, gone: map[string]time.Time{}, watchers: map[*watcher]struct{}{}}
}

func (ms *members) join(m Member, id peer.ID, addrs []string) {
	e := &member{Member: m, id: id, addrs: addrs}
	e.ctx, e.leave = context.WithCancelCause(context.Background())
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.closed {
		e.leave(ErrClosed)
		return
	}
	if old := ms.byID[id]; old != nil {
		ms.leftLocked(old)
	}
	ms.byID[id] = e
	delete(ms.gone, m.Name)
	for w := range ms.watchers {
		w.add(Event{Member: m})
	}
}

func (ms *members) left(id peer.ID) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if m := ms.byID[id]; m != nil {
		ms.leftLocked(m)
	}
}

func (ms *members) leftLocked(m *member) {
	delete(ms.byID, m.id)
	if len(ms.gone) >= maxGone {
		clear(ms.gone)
	}
	ms.gone[m.Name] = time.Now()
	m.leave(fmt.Errorf("%s: %w", m.Name, ErrLeft))
	for w := range ms.watchers {
		w.add(Event{Member: m.Member, Left: true})
	}
}

// close ends all watches and the contexts of all members.
func (ms *members) close() {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.closed = true
	for _, m := range ms.byID {
		m.leave(ErrClosed)
	}
	for w := range ms.watchers {
		w.stop()
	}
}

func (ms *members) get(id peer.ID) *member {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return ms.byID[id]
}

// list returns all members by name, those of one name by address.
func (ms *members) list() []*member {
	ms.mu.Lock()
	list := make([]*member, 0, len(ms.byID))
	for _, m := range ms.byID {
		list = append(list, m)
	}
	ms.mu.Unlock()
	slices.SortFunc(list, func(a, b *member) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if c := strings.Compare(a.Address, b.Address); c != 0 {
			return c
		}
		return strings.Compare(string(a.id), string(b.id))
	})
	return list
}

// find returns the one member of a name.
func (ms *members) find(name string) (*member, error) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.closed {
		return nil, ErrClosed
	}
	var found []*member
	for _, m := range ms.byID {
		if m.Name == name {
			found = append(found, m)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		return nil, ms.ambiguous(name, found)
	}
	if at, ok := ms.gone[name]; ok {
		return nil, fmt.Errorf("%s: %w (%s ago)", name, ErrLeft, time.Since(at).Round(time.Second))
	}
	return nil, ms.unknownLocked(name)
}

func (ms *members) ambiguous(name string, found []*member) error {
	var at []string
	for _, m := range found {
		a := m.Address
		if len(m.addrs) > 0 {
			a = m.addrs[0] // with its port: both may be on one host
		}
		if a == "" {
			a = "an unknown address"
		}
		if m.id == ms.self {
			a += " (this host)"
		}
		at = append(at, a)
	}
	slices.Sort(at)
	return fmt.Errorf("%s is at %s: %w: give each host its own name", name, strings.Join(at, " and "), ErrAmbiguous)
}

func (ms *members) unknownLocked(name string) error {
	var near []string
	for _, m := range ms.byID {
		if limit := 1 + len(name)/4; distance(strings.ToLower(name), strings.ToLower(m.Name), limit) <= limit || strings.HasPrefix(m.Name, name+".") {
			near = append(near, m.Name)
		}
	}
	if len(near) == 0 {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	slices.Sort(near)
	near = slices.Compact(near)
	return fmt.Errorf("%s: %w: did you mean %s?", name, ErrUnknown, strings.Join(near[:min(len(near), 5)], ", "))
}

// distance counts the letters to change, add or remove to get from a to b, or
// more than limit if there are more (Levenshtein).
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// watcher queues events for one function.
type watcher struct {
	f    func(Event)
	wake chan struct{}
	done chan struct{}
	once sync.Once

	mu    sync.Mutex
	queue []Event
}

func (w *watcher) add(e Event) {
	w.mu.Lock()
	w.queue = append(w.queue, e)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) stop() { w.once.Do(func() { close(w.done) }) }

func (w *watcher) run() {
	for {
		select {
		case <-w.done:
			return
		case <-w.wake:
		}
		for {
			w.mu.Lock()
			batch := w.queue
			w.queue = nil
			w.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			for _, e := range batch {
				select {
				case <-w.done:
					return
				default:
					w.f(e)
				}
			}
		}
	}
}

// Members implements Mesh.
func (n *Node) Members() []Member {
	list := n.members.list()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = m.Member
	}
	return out
}

// Watch implements Mesh. f may call stop.
func (n *Node) Watch(f func(Event)) (stop func()) {
	w := &watcher{f: f, wake: make(chan struct{}, 1), done: make(chan struct{})}
	ms := n.members
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.closed {
		return func() {}
	}
	ms.watchers[w] = struct{}{}
	for _, m := range ms.byID {
		w.add(Event{Member: m.Member})
	}
	n.tasks.run(w.run)
	return func() {
		ms.mu.Lock()
		delete(ms.watchers, w)
		ms.mu.Unlock()
		w.stop()
	}
}
