package membership

// Action is something that the caller is to do, in the order given. One type of
// this file.
type Action interface{ action() }

type (
	// Send sends Data, at most MaxMessage bytes, over the link to To. It may
	// be queued. When it cannot be sent, the link is to be closed and reported
	// by LinkDown.
	Send struct {
		To   ID
		Data []byte
	}

	// Dial tries to make a link to ID, at one of Addrs. The answer is LinkUp
	// or DialFailed, within some seconds.
	Dial struct {
		ID    ID
		Addrs []string
	}

	// Drop closes the link to ID after what was sent before. Fault says that
	// the other end broke the protocol: worth a warning.
	Drop struct {
		ID    ID
		Why   string
		Fault bool
	}

	// Joined and Left say that a member can, or can no longer, be reached. A
	// node that was started again leaves and joins. The node itself does
	// neither.
	Joined struct{ Member Member }
	Left   struct{ Member Member }

	// RoutesChanged says that NextHop may answer differently from before.
	RoutesChanged struct{}

	// Beacon sends a beacon to the local network, with ID, addresses, context
	// and Seeking. Never with DegreeNone.
	Beacon struct{ Seeking bool }

	// Conflict says that another node uses this node's ID: a copied key.
	Conflict struct{ Boot uint64 }
)

func (Send) action()          {}
func (Dial) action()          {}
func (Drop) action()          {}
func (Joined) action()        {}
func (Left) action()          {}
func (RoutesChanged) action() {}
func (Beacon) action()        {}
func (Conflict) action()      {}
