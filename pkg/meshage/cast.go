package meshage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxBroadcast bounds a broadcast, in bytes: it goes to everybody, by several
// ways. What is larger is for streams.
const MaxBroadcast = 256 << 10

// topicName is the one topic of gossipsub; ours are told apart inside it, so
// that a subscription need not travel before the first message.
const topicName = "minimega"

// newTopic joins gossipsub. Every node forwards everything, so that those in
// between need no subscription.
func (n *Node) newTopic() error {
	params := pubsub.DefaultGossipSubParams()
	params.Dout = 0 // the swarm believes all connections to be incoming
	params.HeartbeatInitialDelay = 50 * time.Millisecond
	params.HeartbeatInterval = time.Second // a new neighbour hears from the next one on, and of what it missed
	params.HistoryLength, params.HistoryGossip = 10, 6
	ps, err := pubsub.NewGossipSub(n.ctx, n.host,
		pubsub.WithGossipSubParams(params),
		pubsub.WithFloodPublish(true),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictNoSign), // TLS and the key have proved who speaks
		pubsub.WithNoAuthor(),
		pubsub.WithMessageIdFn(messageID),
		pubsub.WithMaxMessageSize(2*MaxBroadcast),
		pubsub.WithPeerOutboundQueueSize(512),
		pubsub.WithValidateQueueSize(512),
		pubsub.WithValidateWorkers(1),
		pubsub.WithSeenMessagesTTL(time.Minute),
		pubsub.WithLogger(slog.New(serious{n.log.Handler()})),
		pubsub.WithRPCLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	if n.topic, err = ps.Join(topicName); err != nil {
		return err
	}
	n.inbox, err = n.topic.Subscribe(pubsub.WithBufferSize(512))
	return err
}

// serious lets only warnings and errors of gossipsub through: it tells of every
// message otherwise.
type serious struct{ slog.Handler }

func (h serious) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// Handle drops what gossipsub says for each message where connections have no
// tags, as ours have none.
func (h serious) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "error bumping delivery tag" {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h serious) WithAttrs(a []slog.Attr) slog.Handler { return serious{h.Handler.WithAttrs(a)} }
func (h serious) WithGroup(name string) slog.Handler   { return serious{h.Handler.WithGroup(name)} }

// messageID is what each broadcast begins with: sender, start of the sender and
// number.
func messageID(m *pb.Message) string {
	if c, err := parseCast(m.GetData()); err == nil {
		return c.id
	}
	return string(m.GetData()[:min(len(m.GetData()), 64)])
}

// cast is a broadcast as it travels: sender and topic, each with its length in
// one byte, 16 bytes of start and number, the payload.
type cast struct {
	id      string
	from    peer.ID
	topic   string
	payload []byte
}

func appendCast(from peer.ID, boot, number uint64, topic string, payload []byte) []byte {
	b := make([]byte, 0, 2+len(from)+len(topic)+16+len(payload))
	b = append(append(b, byte(len(from))), from...)
	b = binary.BigEndian.AppendUint64(b, boot)
	b = binary.BigEndian.AppendUint64(b, number)
	b = append(append(b, byte(len(topic))), topic...)
	return append(b, payload...)
}

func parseCast(b []byte) (cast, error) {
	if len(b) == 0 || len(b) < 1+int(b[0])+16+1 {
		return cast{}, errors.New("broadcast cut off")
	}
	ids := 1 + int(b[0]) + 16
	c := cast{id: string(b[:ids]), from: peer.ID(b[1 : 1+int(b[0])])}
	b = b[ids:]
	if len(b) < 1+int(b[0]) {
		return cast{}, errors.New("broadcast cut off")
	}
	c.topic, c.payload = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	return c, c.from.Validate()
}

// Broadcast implements Mesh. payload is at most MaxBroadcast.
func (n *Node) Broadcast(ctx context.Context, topic string, payload []byte) error {
	if n.ctx.Err() != nil {
		return ErrClosed
	}
	if len(topic) == 0 || len(topic) > 255 {
		return fmt.Errorf("topic of %d bytes", len(topic))
	}
	if len(payload) > MaxBroadcast {
		return fmt.Errorf("broadcast %s: %w: %d bytes, at most %d", topic, ErrTooLarge, len(payload), MaxBroadcast)
	}
	data := appendCast(n.id, n.boot, atomic.AddUint64(&n.casts, 1), topic, payload)
	if err := n.topic.Publish(ctx, data, pubsub.WithLocalPublication(false)); err != nil {
		return fmt.Errorf("broadcast %s: %w", topic, err)
	}
	return nil
}

// receiveBroadcasts gives what arrives to the receivers, one after the other.
func (n *Node) receiveBroadcasts() {
	defer n.inbox.Cancel()
	for {
		m, err := n.inbox.Next(n.ctx)
		if err != nil {
			return
		}
		c, err := parseCast(m.Data)
		if err != nil || c.from == n.id {
			continue
		}
		r := n.services.receiver(c.topic)
		if r == nil {
			continue
		}
		if who := n.members.get(c.from); who != nil {
			r(who.Name, c.payload)
		}
	}
}
