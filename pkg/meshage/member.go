package meshage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"minimega/pkg/meshage/membership"
	"minimega/pkg/near"
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
	Member // without Address, which changes
	id     peer.ID
	ctx    context.Context
	leave  context.CancelCauseFunc
}

// maxGone bounds how many names of former members are remembered.
const maxGone = 1024

func newMembers(self peer.ID) *members {
	return &members{self: self, byID: map[peer.ID]*member{}, gone: map[string]time.Time{}, watchers: map[*watcher]struct{}{}}
}

func (ms *members) join(m Member, id peer.ID) {
	e := &member{Member: m, id: id}
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
		w.add(change{member: e})
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
		w.add(change{m, true})
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

// list returns all members by name, those of one name by ID.
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
		return nil, &ambiguity{found}
	}
	if at, ok := ms.gone[name]; ok {
		return nil, fmt.Errorf("%s: %w (%s ago)", name, ErrLeft, time.Since(at).Round(time.Second))
	}
	return nil, ms.unknownLocked(name)
}

// ambiguity is a name with several members. Where they are, the node knows.
type ambiguity struct{ found []*member }

func (e *ambiguity) Error() string { return e.found[0].Name + ": " + ErrAmbiguous.Error() }
func (e *ambiguity) Unwrap() error { return ErrAmbiguous }

// find returns the one member of a name.
func (n *Node) find(name string) (*member, error) {
	m, err := n.members.find(name)
	var several *ambiguity
	if !errors.As(err, &several) {
		return m, err
	}
	var at []string
	for _, m := range several.found {
		a := "an unknown address"
		if addrs := n.addrsOf(m.id); len(addrs) > 0 {
			a = addrs[0] // with its port: both may be on one host
		}
		if m.id == n.id {
			a += " (this host)"
		}
		at = append(at, a)
	}
	slices.Sort(at)
	return nil, fmt.Errorf("%s is at %s: %w: give each host its own name", name, strings.Join(at, " and "), ErrAmbiguous)
}

// addrsOf lists where a node can be dialled, by its own word.
func (n *Node) addrsOf(id peer.ID) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, _ := n.machine.Member(membership.ID(id))
	return m.Addrs
}

// addressOf is the IP address of a node: where its connection comes from if
// there is one, else what it says of itself.
func (n *Node) addressOf(id peer.ID, addrs []string) string {
	for _, c := range n.swarm.ConnsToPeer(id) {
		var m *muxed
		if c.As(&m) {
			return addrPort(m.side.RemoteAddr()).Addr().String()
		}
	}
	for _, ap := range parseAddrs(addrs) {
		return ap.Addr().String()
	}
	return ""
}

func (ms *members) unknownLocked(name string) error {
	var alike []string
	for _, m := range ms.byID {
		if limit := 1 + len(name)/4; near.Distance(strings.ToLower(name), strings.ToLower(m.Name), limit) <= limit || strings.HasPrefix(m.Name, name+".") {
			alike = append(alike, m.Name)
		}
	}
	if len(alike) == 0 {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	slices.Sort(alike)
	alike = slices.Compact(alike)
	return fmt.Errorf("%s: %w: did you mean %s?", name, ErrUnknown, strings.Join(alike[:min(len(alike), 5)], ", "))
}

// watcher queues events for one function.
type watcher struct {
	f    func(change)
	wake chan struct{}
	done chan struct{}
	once sync.Once

	mu    sync.Mutex
	queue []change
}

type change struct {
	member *member
	left   bool
}

func (w *watcher) add(e change) {
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

// present is a member with its address as it is now.
func (n *Node) present(m *member) Member {
	out := m.Member
	out.Address = n.addressOf(m.id, n.addrsOf(m.id))
	return out
}

// Members implements Mesh.
func (n *Node) Members() []Member {
	list := n.members.list()
	out := make([]Member, len(list))
	for i, m := range list {
		out[i] = n.present(m)
	}
	return out
}

// Watch implements Mesh. f may call stop.
func (n *Node) Watch(f func(Event)) (stop func()) {
	w := &watcher{f: func(e change) { f(Event{Member: n.present(e.member), Left: e.left}) }, wake: make(chan struct{}, 1), done: make(chan struct{})}
	ms := n.members
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.closed {
		return func() {}
	}
	ms.watchers[w] = struct{}{}
	for _, m := range ms.byID {
		w.add(change{member: m})
	}
	n.tasks.run(w.run)
	return func() {
		ms.mu.Lock()
		delete(ms.watchers, w)
		ms.mu.Unlock()
		w.stop()
	}
}
