package membership

import "time"

// Members lists who can be reached, this node included, in no order.
func (m *Machine) Members() []Member { return nil }

// Member tells of one node, with ok false when it cannot be reached.
func (m *Machine) Member(id ID) (member Member, ok bool) { return Member{}, false }

// Lookup lists all members of a name, nearest first. More than one means that
// the name is ambiguous.
func (m *Machine) Lookup(name string) []Member { return nil }

// Known reports whether a node of this name was a member within Config.MSA or
// longer ago, and is none now.
func (m *Machine) Known(name string) bool { return false }

// NextHop returns the neighbour to whom messages for id are to be given: id
// itself when there is a link.
func (m *Machine) NextHop(id ID) (via ID, ok bool) { return "", false }

// Path lists the nodes on the way to id, from the first neighbour to id.
func (m *Machine) Path(id ID) []ID { return nil }

// Links lists the nodes to which this one has a link, by ID.
func (m *Machine) Links() []ID { return nil }

// Neighbours lists the members to whom id has links that both ends declare, by
// ID.
func (m *Machine) Neighbours(id ID) []ID { return nil }

// Size counts the members, this node included.
func (m *Machine) Size() int { return 0 }

// Degree returns the degree last set.
func (m *Machine) Degree() int { return 0 }

// Target returns how many links the node seeks now: what Degree means for a
// mesh of this size.
func (m *Machine) Target() int { return 0 }

// Stats counts what a machine has done since it was made.
type Stats struct {
	Records     int    // kept now, this node's included
	Received    uint64 // records that were new
	Repeated    uint64 // records that were known already
	Refused     uint64 // records beyond Config.Members
	Suspected   uint64 // links dropped because they were silent
	Trimmed     uint64 // links ended because there were too many
	Faults      uint64 // links dropped because the other end broke the protocol
	Published   uint64 // versions of this node's own record
	LateTicks   uint64 // ticks that came too late: the process was starved
	Searches    uint64 // of the graph
	LastChanged time.Time
}

// Stats returns the counters.
func (m *Machine) Stats() Stats { return Stats{} }
