// Package meshage is a mesh of minimega hosts: they find each other, know who
// is there, and send each other requests, broadcasts and streams, also where
// two of them can only meet by way of others. A Node is one host's part in it.
//
// Names, not addresses, are what callers use. Links are libp2p connections over
// a Transport; who is in the mesh and which way leads to whom is decided by the
// pure state machine of package membership.
package meshage

import (
	"context"
	"errors"
	"io"
	"time"
)

// The ways in which a name leads to nobody. Errors of this package wrap one of
// them, with the name and what to do in their text.
var (
	ErrUnknown   = errors.New("no such node in the mesh")
	ErrLeft      = errors.New("the node has left the mesh")
	ErrAmbiguous = errors.New("several nodes of the mesh have this name")
	ErrClosed    = errors.New("the mesh is closed")
	ErrTooLarge  = errors.New("message too large")
	ErrProtocol  = errors.New("the node does not speak this protocol") // it runs another version
)

// MaxMessage bounds a request or a reply, in bytes. What may be larger is a
// stream. MaxBroadcast bounds a broadcast.
const MaxMessage = 64 << 20

// Member is a node that can be reached.
type Member struct {
	Name    string
	Address string    // IP address at which its neighbours see it, "" when not known
	Joined  time.Time // when this node first saw it, by this node's clock
}

// Event says that a member has come or gone.
type Event struct {
	Member Member
	Left   bool
}

// Stream is a connection to one service of another node, flow-controlled on
// its own. CloseWrite ends what is sent, Close both directions, Reset gives up
// at once and lets the other side see an error.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
	Reset() error
	SetDeadline(time.Time) error
}

// Handler serves one stream that member from has opened. The stream is closed
// when it returns. ctx ends with the node, or when from leaves.
type Handler func(ctx context.Context, from string, s Stream)

// Responder answers one request. Its error travels to the caller as text.
type Responder func(ctx context.Context, from string, request []byte) ([]byte, error)

// Receiver takes one broadcast. It must not block.
type Receiver func(from string, payload []byte)

// Reply is what one of several nodes answered.
type Reply struct {
	From    string
	Payload []byte
	Err     error
}

// Mesh is what users of a node need of it; *Node is one. Messages to the node's
// own name are served like any other.
type Mesh interface {
	Name() string
	// Members lists all that can be reached, this node included, by name.
	Members() []Member
	// Watch calls f, one event at a time, until stop is called. It begins with
	// an event for each present member.
	Watch(f func(Event)) (stop func())
	// Handle, Respond and Subscribe say who serves a protocol or topic of this
	// node. They are called before traffic is expected, once for each name.
	Handle(protocol string, h Handler)
	Respond(protocol string, r Responder)
	Subscribe(topic string, r Receiver)
	// Open opens a stream to a member. It fails at once, or when the member
	// leaves, with one of the errors above.
	Open(ctx context.Context, to, protocol string) (Stream, error)
	// Call sends a request and waits for its reply, ctx, or the loss of to.
	Call(ctx context.Context, to, protocol string, request []byte) ([]byte, error)
	// CallAll sends a request to each of to at once. Exactly one reply arrives
	// for each, in order of arrival, then the channel is closed.
	CallAll(ctx context.Context, to []string, protocol string, request []byte) <-chan Reply
	// Broadcast reaches every other member, best effort. payload is at most
	// MaxBroadcast.
	Broadcast(ctx context.Context, topic string, payload []byte) error
}
