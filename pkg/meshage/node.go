package meshage

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	blankhost "github.com/libp2p/go-libp2p/p2p/host/blank"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"minimega/pkg/meshage/membership"
)

// DefaultPort is where nodes listen, and where a dial without a port goes.
const DefaultPort = 9000

// Options say what a node is. Only Name is needed.
type Options struct {
	Name    string // what the others call it: the host name
	Context string // only nodes of one context meet; "" is a context too
	// Port is for TCP and for beacons over UDP, 0 takes any free port.
	Port int
	// Degree is how many links the node seeks by itself: membership.DegreeNone
	// (0), membership.DegreeAuto (-1), or a number.
	Degree int
	// MSATimeout is how long what is known of unreachable nodes is kept, 0
	// meaning 10 s.
	MSATimeout time.Duration
	// Broadcast is where beacons go, "" and 255.255.255.255 meaning to the
	// broadcast address of each network of the host.
	Broadcast string
	// Key is the secret of the mesh. With neither Key nor Open the node meets
	// only nodes of the same user on the same host.
	Key *Key
	// Open lets in everybody who asks, from everywhere.
	Open bool
	// IdentityFile keeps who the node is over restarts; "" makes a new one
	// each time.
	IdentityFile string
	Transport    Transport // nil means TCP
	Log          *slog.Logger
}

// Node is one host's part in a mesh. Close ends it.
type Node struct {
	opts      Options
	log       *slog.Logger
	id        peer.ID
	boot      uint64
	admission *admission
	gate      *gate
	listener  net.Listener
	beacons   Beacons // nil when there are none
	seal      *beaconSeal
	source    *source
	store     io.Closer
	swarm     *swarm.Swarm
	host      *blankhost.BlankHost
	meet      event.Emitter
	topic     *pubsub.Topic
	inbox     *pubsub.Subscription
	casts     uint64 // broadcasts sent, atomic
	members   *members
	services  services
	dials     dials

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  tasks
	once   sync.Once
	wake   chan struct{} // the machine may want its tick earlier
	shout  chan bool     // beacons to send

	mu      sync.Mutex // guards what follows; never held over I/O
	machine *membership.Machine
	alarm   time.Time // when the machine's tick will come unless it is poked
	links   map[peer.ID]*link
	addrs   []netip.AddrPort
	facing  map[netip.Addr]bool // this node's own addresses, as seen from neighbours
	used    map[peer.ID]*usage
}

var _ Mesh = (*Node)(nil)

// New starts a node. It listens when New returns; the mesh is found in the
// background. ctx bounds the start only.
func New(ctx context.Context, opts Options) (*Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n := &Node{opts: opts, log: opts.Log, wake: make(chan struct{}, 1), shout: make(chan bool, 1), gate: newGate(),
		links: map[peer.ID]*link{}, used: map[peer.ID]*usage{}, facing: map[netip.Addr]bool{}, services: newServices()}
	n.dials.init()
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.opts.Transport == nil {
		n.opts.Transport = TCP{}
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.build(); err != nil {
		n.stop()
		return nil, fmt.Errorf("start the mesh node: %w", err)
	}
	return n, nil
}

// local says whether the node keeps to this host.
func (o *Options) local() bool { return o.Key == nil && !o.Open }

func (n *Node) build() error {
	key := n.opts.Key
	if key == nil {
		key = openKey()
	}
	id, err := identity(n.opts.IdentityFile)
	if err != nil {
		return err
	}
	if n.admission, err = newAdmission(id, key, n.opts.Context); err != nil {
		return err
	}
	n.id = n.admission.id
	if n.seal, err = newBeaconSeal(key, n.opts.Context); err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	if err := n.newMachine(); err != nil {
		return err
	}
	if err := n.newSwarm(id); err != nil {
		return err
	}
	if err := n.newTopic(); err != nil {
		return err
	}
	n.run()
	return nil
}

// listen opens the port and what beacons need.
func (n *Node) listen() (err error) {
	if n.listener, err = n.opts.Transport.Listen(n.opts.Port, n.opts.local()); err != nil {
		return fmt.Errorf("listen on port %d: %w (another daemon may have it: choose one with -port)", n.opts.Port, err)
	}
	n.addrs = n.opts.Transport.Addresses(n.listener)
	if n.opts.local() {
		return nil
	}
	port := n.opts.Port
	if port == 0 {
		port = DefaultPort
	}
	if n.beacons, err = n.opts.Transport.Beacons(port, n.opts.Broadcast); err != nil {
		return fmt.Errorf("listen for beacons on UDP port %d: %w", port, err)
	}
	return nil
}

func (n *Node) newMachine() (err error) {
	var seed [40]byte
	if _, err := crand.Read(seed[:]); err != nil {
		return err
	}
	n.boot = binary.BigEndian.Uint64(seed[32:])
	now := time.Now()
	n.members = newMembers(n.id)
	n.machine, err = membership.New(membership.Config{
		Self: membership.ID(n.id), Name: n.opts.Name, Context: n.opts.Context, Addrs: texts(n.addrs),
		Boot: n.boot, Start: uint64(now.UnixMilli()), Degree: n.opts.Degree, MSA: n.opts.MSATimeout,
		Rand: rand.New(rand.NewChaCha8([32]byte(seed[:32]))),
	}, now)
	if err != nil {
		return err
	}
	n.members.join(Member{Name: n.opts.Name, Joined: now}, n.id)
	return nil
}

// texts writes addresses as the machine keeps them.
func texts(addrs []netip.AddrPort) []string {
	list := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if len(list) < membership.MaxAddrs {
			list = append(list, a.String())
		}
	}
	return list
}

// ID names the node among all others, and stays if there is an IdentityFile.
func (n *Node) ID() string { return n.id.String() }

// Name implements Mesh.
func (n *Node) Name() string { return n.opts.Name }

// Addresses lists where the node listens.
func (n *Node) Addresses() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]netip.AddrPort(nil), n.addrs...)
}

func (n *Node) port() uint16 { return addrPort(n.listener.Addr()).Port() }

// newSwarm makes a libp2p host of the parts needed here: no identify, no relay,
// no NAT, no metrics.
func (n *Node) newSwarm(id crypto.PrivKey) error {
	bus := eventbus.NewBus()
	store, err := pstoremem.NewPeerstore()
	if err != nil {
		return err
	}
	n.store = store
	if err := errors.Join(store.AddPrivKey(n.id, id), store.AddPubKey(n.id, id.GetPublic())); err != nil {
		return err
	}
	if n.swarm, err = swarm.NewSwarm(n.id, store, bus); err != nil {
		return err
	}
	n.host = blankhost.NewBlankHost(n.swarm, blankhost.WithEventBus(bus))
	if n.host == nil {
		return errors.New("no libp2p host") // it has logged why
	}
	if n.meet, err = bus.Emitter(new(event.EvtPeerIdentificationCompleted)); err != nil {
		return err
	}
	if n.source, err = newSource(n.listener.Addr()); err != nil {
		return err
	}
	n.host.SetStreamHandler(streamProtocol, n.serve)
	n.swarm.Notify(&network.NotifyBundle{ConnectedF: connected})
	return errors.Join(n.swarm.AddTransport(n.source), n.swarm.AddListenAddr(n.source.at))
}

// connected tells whoever dialled that the swarm has the connection.
func connected(_ network.Network, c network.Conn) {
	var m *muxed
	if c.As(&m) {
		close(m.up)
	}
}

// run starts what goes on until Close.
func (n *Node) run() {
	n.tasks.run(n.accept)
	n.tasks.run(n.ticks)
	n.tasks.run(n.tidy)
	n.tasks.run(n.receiveBroadcasts)
	if n.beacons != nil {
		n.tasks.run(n.sendBeacons)
		n.tasks.run(n.hearBeacons)
	}
	n.Watch(n.note)
}

// note writes who comes and goes into the log.
func (n *Node) note(e Event) {
	if e.Left {
		n.log.Info("host left the mesh", "host", e.Member.Name)
		return
	}
	if _, err := n.find(e.Member.Name); errors.Is(err, ErrAmbiguous) {
		n.log.Warn("two hosts have one name", "err", err)
	} else if e.Member.Name != n.opts.Name {
		n.log.Info("host joined the mesh", "host", e.Member.Name, "address", e.Member.Address)
	}
}

// Close leaves the mesh and ends all that the node does. Streams that are
// still open break.
func (n *Node) Close() error {
	n.once.Do(func() {
		n.goodbye()
		n.stop()
	})
	return nil
}

// stop ends everything, as far as New has come.
func (n *Node) stop() {
	n.cancel()
	if n.listener != nil {
		_ = n.listener.Close()
	}
	if n.beacons != nil {
		_ = n.beacons.Close()
	}
	if n.members != nil {
		n.members.close()
	}
	if n.meet != nil {
		_ = n.meet.Close()
	}
	if n.swarm != nil {
		_ = n.swarm.Close() // breaks every connection and waits for their streams
	}
	if n.store != nil {
		_ = n.store.Close()
	}
	n.tasks.wait()
}

// tasks are the goroutines of a node. None begins once it is being waited for
// them.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// run starts f, or returns false when the node ends.
func (t *tasks) run(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.wg.Go(f)
	}
	return !t.closed
}

func (t *tasks) wait() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
