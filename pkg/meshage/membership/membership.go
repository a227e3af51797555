// Package membership decides who is in a mesh, which way leads to whom, and
// which links to make and to cut. It is a pure state machine: events go in,
// actions come out. It starts no goroutine, does no I/O, and takes the time and
// its random numbers from the caller, so that 1,000 nodes can be simulated.
//
// Each node describes itself in one Record with its neighbours. Records are
// flooded along the links in batches; two nodes that meet compare a digest of
// their tables and exchange what the other lacks. A link counts when both ends
// declare it, and who can be reached over such links is a member.
package membership

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// ID names a node for ever, such as the bytes of a libp2p peer.ID. It is
// opaque, need not be UTF-8, and is 1 to MaxID bytes long.
type ID string

// Limits of what a node says of itself. A record beyond them is refused.
const (
	MaxID       = 128  // bytes of an ID
	MaxName     = 255  // bytes of a name or of a context
	MaxAddrs    = 16   // addresses of a node
	MaxAddr     = 128  // bytes of an address
	MaxPeers    = 1024 // links of a node
	MaxSig      = 128  // bytes of a signature
	MaxMessage  = 128 << 10
	MaxMembers  = 10_000  // records that a node keeps, unless Config says otherwise
	maxVersion  = 1 << 62 // above it no successor could be found
	protocol    = 1
	maxInterval = 10 * time.Second // between heartbeats
)

// Degrees with a meaning of their own.
const (
	// DegreeNone seeks no links but those that were pinned: upstream's default.
	// A split is still healed.
	DegreeNone = 0
	// DegreeAuto links everybody with everybody in a small mesh, and each node
	// with eight others in a larger one.
	DegreeAuto = -1
)

// Signed is a record with its signature, as Config.Verify gets it.
type Signed struct {
	ID        ID
	Body, Sig []byte // not to be kept or changed
}

// Config is what a machine is made of. Zero durations and limits mean the
// defaults named with them.
type Config struct {
	Self    ID
	Name    string   // of the host; several nodes may have the same
	Context string   // links are sought within it only; pinned links cross it
	Addrs   []string // where others can dial this node

	// Boot is a random number that tells this start of the node from others.
	Boot uint64
	// Start is the version of the first record, best the Unix time in
	// milliseconds. A wrong clock does no harm: a node that hears an older
	// record of itself with a higher version goes above that.
	Start uint64

	Degree int // links that the node seeks, or DegreeNone or DegreeAuto

	MSA       time.Duration // records of nodes out of reach are forgotten after it: 10 s
	Heartbeat time.Duration // between signs of life on an idle link: 600 ms
	Hold      time.Duration // a link hung up is not sought again before: 60 s
	Members   int           // records kept at most: MaxMembers

	Rand *rand.Rand // the only source of chance; owned by the machine from now on

	// Sign makes the signature of this node's record, and Verify checks those
	// of others: one answer for each, in order. Both are nil where nobody lies.
	Sign   func(body []byte) []byte
	Verify func(batch []Signed) []bool
}

func (c *Config) complete() error {
	if err := c.check(); err != nil {
		return err
	}
	for _, d := range []struct {
		at       *time.Duration
		standard time.Duration
	}{{&c.MSA, 10 * time.Second}, {&c.Heartbeat, 600 * time.Millisecond}, {&c.Hold, time.Minute}} {
		if *d.at <= 0 {
			*d.at = d.standard
		}
	}
	if c.Members <= 0 {
		c.Members = MaxMembers
	}
	return nil
}

func (c *Config) check() error {
	switch {
	case len(c.Self) == 0 || len(c.Self) > MaxID:
		return fmt.Errorf("an ID must have 1 to %d bytes, this one has %d", MaxID, len(c.Self))
	case len(c.Name) > MaxName || len(c.Context) > MaxName:
		return fmt.Errorf("name and context must have at most %d bytes each", MaxName)
	case c.Start >= maxVersion:
		return fmt.Errorf("the first version must be below 2^62")
	case c.Heartbeat > maxInterval/slowest:
		return fmt.Errorf("heartbeats must be at most %v apart", maxInterval/slowest)
	case c.Rand == nil:
		return errors.New("no source of random numbers")
	}
	return checkAddrs(c.Addrs)
}

func checkAddrs(addrs []string) error {
	if len(addrs) > MaxAddrs {
		return fmt.Errorf("a node may have %d addresses, not %d", MaxAddrs, len(addrs))
	}
	for _, a := range addrs {
		if len(a) == 0 || len(a) > MaxAddr {
			return fmt.Errorf("an address must have 1 to %d bytes: %q", MaxAddr, a)
		}
	}
	return nil
}

// Member is a node that can be reached, or could be until it left.
type Member struct {
	ID      ID
	Name    string
	Context string
	Addrs   []string
	Boot    uint64
	Version uint64
	Joined  time.Time // when this node first could reach it
	Hops    int       // links on the way there; 0 for the node itself
	Via     ID        // the neighbour who is first on that way; "" for the node itself
	Links   int       // links that it declares
}
