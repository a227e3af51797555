package meshage

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	goyamux "github.com/libp2p/go-yamux/v5"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxStreams bounds the streams that a peer has open to this node over one
// connection; more are reset.
const maxStreams = 2048

// source hands finished connections to the libp2p swarm, those dialled like
// those accepted: the swarm itself dials nothing, as it could dial only who is
// known by its ID, and listens nowhere. It is the swarm's transport and its
// only listener.
type source struct {
	at    ma.Multiaddr
	ready chan transport.CapableConn
	done  chan struct{}
	once  sync.Once
}

func newSource(at net.Addr) (*source, error) {
	m, err := manet.FromNetAddr(at)
	if err != nil {
		return nil, err
	}
	return &source{at: m, ready: make(chan transport.CapableConn), done: make(chan struct{})}, nil
}

var (
	_ transport.Transport = (*source)(nil)
	_ transport.Listener  = sourceListener{}
)

func (s *source) Dial(context.Context, ma.Multiaddr, peer.ID) (transport.CapableConn, error) {
	return nil, errors.New("the mesh dials by itself")
}
func (s *source) CanDial(ma.Multiaddr) bool                       { return false }
func (s *source) Listen(ma.Multiaddr) (transport.Listener, error) { return sourceListener{s}, nil }
func (s *source) Protocols() []int                                { return []int{ma.P_TCP} }
func (s *source) Proxy() bool                                     { return false }

type sourceListener struct{ s *source }

func (l sourceListener) Accept() (transport.CapableConn, error) {
	select {
	case c := <-l.s.ready:
		return c, nil
	case <-l.s.done:
		return nil, transport.ErrListenerClosed
	}
}

func (l sourceListener) Close() error            { l.s.once.Do(func() { close(l.s.done) }); return nil }
func (l sourceListener) Multiaddr() ma.Multiaddr { return l.s.at }
func (l sourceListener) Addr() net.Addr {
	a, err := manet.ToNetAddr(l.s.at)
	if err != nil {
		return &net.TCPAddr{}
	}
	return a
}

// hand gives a connection to the swarm.
func (s *source) hand(ctx context.Context, c *muxed) error {
	select {
	case s.ready <- c:
		return nil
	case <-s.done:
		return errors.Join(ErrClosed, c.Close())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), c.Close())
	}
}

// muxed is an admitted connection with streams on it.
type muxed struct {
	network.MuxedConn
	from   *source
	self   peer.ID
	side   *admitted
	local  ma.Multiaddr
	remote ma.Multiaddr
	up     chan struct{} // closed when the swarm has it
}

func (s *source) mux(self peer.ID, a *admitted, server bool) (*muxed, error) {
	local, err1 := manet.FromNetAddr(a.LocalAddr())
	remote, err2 := manet.FromNetAddr(a.RemoteAddr())
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	m, err := (*yamux.Transport)(muxConfig()).NewConn(a, server, &network.NullScope{})
	if err != nil {
		return nil, err
	}
	return &muxed{MuxedConn: m, from: s, self: self, side: a, local: local, remote: remote, up: make(chan struct{})}, nil
}

func muxConfig() *goyamux.Config {
	c := goyamux.DefaultConfig()
	c.MaxStreamWindowSize = 16 << 20 // libp2p's choice: 1 GB/s at 16 ms
	c.ReadBufSize = 0                // TLS buffers
	c.MaxIncomingStreams = maxStreams
	c.LogOutput = io.Discard
	c.KeepAliveInterval = 10 * time.Second // for connections without a link and its heartbeats
	return c
}

func (c *muxed) LocalPeer() peer.ID             { return c.self }
func (c *muxed) RemotePeer() peer.ID            { return c.side.peer }
func (c *muxed) RemotePublicKey() crypto.PubKey { return c.side.key }
func (c *muxed) LocalMultiaddr() ma.Multiaddr   { return c.local }
func (c *muxed) RemoteMultiaddr() ma.Multiaddr  { return c.remote }
func (c *muxed) Scope() network.ConnScope       { return &network.NullScope{} }
func (c *muxed) Transport() transport.Transport { return c.from }
func (c *muxed) ConnState() network.ConnectionState {
	return network.ConnectionState{StreamMultiplexer: yamux.ID, Security: protocol.ID(wireProtocol), Transport: "tcp"}
}

// As lets the node find its own connection behind the swarm's.
func (c *muxed) As(target any) bool {
	if t, ok := target.(**muxed); ok {
		*t = c
		return true
	}
	return c.MuxedConn.As(target)
}
