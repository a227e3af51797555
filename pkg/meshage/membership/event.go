package membership

// Event is something that happened to the node. One type of this file.
type Event interface{ event() }

type (
	// LinkUp says that there is a link to ID now: a reliable, ordered stream of
	// messages, authenticated by the transport. It comes before the first
	// Message from ID, and only once until LinkDown or Drop.
	LinkUp struct{ ID ID }

	// LinkDown says that the link to ID has ended. For a link that the machine
	// has dropped it may come or not, but never after the next LinkUp.
	LinkDown struct{ ID ID }

	// Message is what came over the link from From. The machine keeps no part
	// of Data.
	Message struct {
		From ID
		Data []byte
	}

	// Seen says that a beacon of ID was heard, of this node's context and key.
	// Seeking is what its Beacon action said.
	Seen struct {
		ID      ID
		Addrs   []string
		Seeking bool
	}

	// DialFailed answers a Dial that led to no LinkUp.
	DialFailed struct{ ID ID }

	// Pin asks for a link to ID that is never trimmed and always dialled
	// again, until Hangup: what `mesh dial` means. It may come before or after
	// the LinkUp. Without a link the machine dials Addrs.
	Pin struct {
		ID    ID
		Addrs []string
	}

	// Hangup ends the link to ID, pinned or not. Neither end seeks the other
	// again before Config.Hold is over.
	Hangup struct{ ID ID }

	// SetDegree changes Config.Degree, SetAddrs Config.Addrs. Addresses beyond
	// the limits are left out.
	SetDegree struct{ Degree int }
	SetAddrs  struct{ Addrs []string }

	// Leave tells the others that the node ends now. Its messages should be
	// sent before the links close; the machine wants nothing more after it.
	Leave struct{}
)

func (LinkUp) event()     {}
func (LinkDown) event()   {}
func (Message) event()    {}
func (Seen) event()       {}
func (DialFailed) event() {}
func (Pin) event()        {}
func (Hangup) event()     {}
func (SetDegree) event()  {}
func (SetAddrs) event()   {}
func (Leave) event()      {}
