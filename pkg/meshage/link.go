package meshage

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"minimega/pkg/meshage/membership"
)

const (
	linkQueue = 4096 // messages that wait for one neighbour
	linkTime  = 5 * time.Second
	// lingerTime is how long a link that ends waits for the other side.
	lingerTime = 300 * time.Millisecond
)

// link is the control stream to one neighbour: the machine's messages, each
// with its length before it. There is one for each pair of neighbours.
type link struct {
	id      peer.ID
	dialled bool      // this node opened it
	boot    uint64    // of the other node, 0 until known; guarded by Node.mu, as up is
	up      bool      // the machine knows it
	heardAt time.Time // guarded by Node.mu
	stream  network.Stream
	out     chan []byte
	done    chan struct{} // closed by end
	heard   chan struct{} // closed when the reader has ended
	once    sync.Once
	sever   bool // close the connection too; set before done is closed

	deadline time.Time // of writes; the writer's own
}

func newLink(id peer.ID, dialled bool) *link {
	return &link{id: id, dialled: dialled, out: make(chan []byte, linkQueue), done: make(chan struct{}), heard: make(chan struct{})}
}

// end lets the writer send what is queued and close.
func (l *link) end(sever bool) {
	l.once.Do(func() {
		l.sever = sever
		close(l.done)
	})
}

// openLink makes a link to a node that is connected.
func (n *Node) openLink(ctx context.Context, id peer.ID) error {
	l := newLink(id, true)
	n.mu.Lock()
	if n.links[id] != nil {
		n.mu.Unlock()
		return nil
	}
	n.links[id] = l
	n.mu.Unlock()
	err := n.greet(ctx, l)
	if err == nil && n.linkUp(l) {
		return nil
	}
	if l.stream != nil {
		_ = l.stream.Reset()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[id] == l {
		delete(n.links, id)
	} else if n.links[id] != nil {
		return nil // the other node's own stream has taken its place
	}
	return err
}

// greet opens the stream and waits for the other side to agree.
func (n *Node) greet(ctx context.Context, l *link) error {
	s, err := n.rawStream(ctx, l.id)
	if err != nil {
		return err
	}
	n.mu.Lock()
	l.stream = s
	n.mu.Unlock()
	if err := s.SetDeadline(time.Now().Add(linkTime)); err != nil {
		return err
	}
	h := header{kind: kindLink, from: n.id, to: l.id}
	if _, err := s.Write(binary.BigEndian.AppendUint64(h.append(nil), n.boot)); err != nil {
		return err
	}
	var boot [8]byte
	if _, err := io.ReadFull(s, boot[:]); err != nil {
		return fmt.Errorf("no link: %w", err)
	}
	n.mu.Lock()
	l.boot = binary.BigEndian.Uint64(boot[:])
	n.mu.Unlock()
	return s.SetDeadline(time.Time{})
}

// serveLink takes a link that a neighbour has opened, unless this node's own
// goes before. When both open one at once, that of the smaller ID stays.
func (n *Node) serveLink(s network.Stream) {
	id := s.Conn().RemotePeer()
	var raw [8]byte
	if _, err := io.ReadFull(s, raw[:]); err != nil {
		_ = s.Reset()
		return
	}
	l := newLink(id, false)
	l.stream, l.boot = s, binary.BigEndian.Uint64(raw[:])
	n.mu.Lock()
	old := n.links[id]
	if old != nil && !supersedes(l, old, n.id) {
		n.mu.Unlock()
		_ = s.Reset()
		return
	}
	if old != nil && old.up {
		n.handleLocked(membership.LinkDown{ID: membership.ID(id)})
	}
	n.links[id] = l
	var stale network.Stream
	restarted := false
	if old != nil {
		stale, restarted = old.stream, old.boot != 0 && old.boot != l.boot
		old.end(false)
	}
	n.mu.Unlock()
	if stale != nil {
		_ = stale.Reset()
	}
	if restarted {
		n.closeOthers(s.Conn())
	}
	err := errors.Join(s.SetDeadline(time.Now().Add(linkTime)), write(s, binary.BigEndian.AppendUint64(nil, n.boot)), s.SetDeadline(time.Time{}))
	if err != nil || !n.linkUp(l) {
		n.linkLost(l)
	}
}

// closeOthers closes the connections that a node had before it was started
// again: nobody is at their other end.
func (n *Node) closeOthers(now network.Conn) {
	for _, c := range n.swarm.ConnsToPeer(now.RemotePeer()) {
		if c.ID() != now.ID() {
			_ = c.Close()
		}
	}
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

// supersedes says whether the new link, opened by the other node, takes the
// place of old. Whoever opened both knows best; a node that was started again
// too; else both nodes must come to one answer.
func supersedes(l, old *link, self peer.ID) bool {
	if !old.dialled || old.boot != 0 && old.boot != l.boot {
		return true
	}
	return l.id < self
}

// linkUp tells the machine and starts both directions. It returns false when
// another link has taken the place of l.
func (n *Node) linkUp(l *link) bool {
	n.mu.Lock()
	if n.links[l.id] != l || n.ctx.Err() != nil {
		n.mu.Unlock()
		return false
	}
	l.up = true
	n.useLocked(l.id)
	var m *muxed
	if l.stream.Conn().As(&m) {
		n.faceLocked(addrPort(m.side.LocalAddr()).Addr())
	}
	n.handleLocked(membership.LinkUp{ID: membership.ID(l.id)})
	l.heardAt = time.Now()
	n.tasks.run(func() { n.readLink(l) })
	n.tasks.run(func() { n.writeLink(l) })
	n.mu.Unlock()
	// gossipsub learns of peers by identify, which is not run here.
	_ = n.meet.Emit(event.EvtPeerIdentificationCompleted{Peer: l.id, Protocols: []protocol.ID{pubsub.GossipSubID_v12}})
	return true
}

// linkLost is the end of a link that nobody wanted.
func (n *Node) linkLost(l *link) {
	n.mu.Lock()
	if n.links[l.id] == l {
		delete(n.links, l.id)
		if l.up {
			n.handleLocked(membership.LinkDown{ID: membership.ID(l.id)})
		}
	}
	n.mu.Unlock()
	l.end(false)
	_ = l.stream.Reset()
}

func (n *Node) readLink(l *link) {
	defer close(l.heard)
	defer n.linkLost(l)
	in := bufio.NewReader(l.stream)
	var size [4]byte
	var buffer []byte
	for {
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return
		}
		length := binary.BigEndian.Uint32(size[:])
		if length > membership.MaxMessage {
			n.log.Warn("neighbour broke the protocol", "peer", n.nameOf(l.id), "length", length)
			return
		}
		if cap(buffer) < int(length) {
			buffer = make([]byte, length)
		}
		if _, err := io.ReadFull(in, buffer[:length]); err != nil {
			return
		}
		n.mu.Lock()
		l.heardAt = time.Now()
		if n.links[l.id] == l { // else it has been dropped, and its last words are being sent
			n.handleLocked(membership.Message{From: membership.ID(l.id), Data: buffer[:length]})
		}
		n.mu.Unlock()
	}
}

func (n *Node) writeLink(l *link) {
	for {
		select {
		case m := <-l.out:
			if !l.send(l.more(m)) {
				return
			}
		case <-l.done:
			n.flush(l)
			return
		case <-n.ctx.Done():
			_ = l.stream.Reset()
			return
		}
	}
}

// more is m and what waits behind it, as it travels: a write costs more than a
// message.
func (l *link) more(m []byte) []byte {
	const enough = 32 << 10
	var b []byte
	for {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(m))), m...)
		if len(b) > enough {
			return b
		}
		select {
		case m = <-l.out:
		default:
			return b
		}
	}
}

// send writes messages. On failure the reader of the link sees to the rest. The
// deadline is at least linkTime ahead, and moved rarely: it costs a timer.
func (l *link) send(b []byte) bool {
	var err error
	if now := time.Now(); l.deadline.Sub(now) < linkTime {
		l.deadline = now.Add(2 * linkTime)
		err = l.stream.SetWriteDeadline(l.deadline)
	}
	err = errors.Join(err, write(l.stream, b))
	if err != nil {
		_ = l.stream.Reset()
	}
	return err == nil
}

// flush sends what is queued on a link that ends, and closes it.
func (n *Node) flush(l *link) {
	for {
		select {
		case m := <-l.out:
			if !l.send(l.more(m)) {
				return
			}
			continue
		default:
		}
		break
	}
	// The other side closes when it has read the last words.
	_ = l.stream.CloseWrite()
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	select {
	case <-l.heard:
	case <-t.C:
	case <-n.ctx.Done():
	}
	_ = l.stream.Reset()
	if l.sever {
		_ = n.swarm.ClosePeer(l.id)
	}
}
