package membership

import (
	"time"
)

// seeker decides whom to dial.
type seeker struct {
	at    time.Duration // when to look again
	dials bag[*dial]    // under way
	pins  bag[*pinned]
	seen  bag[*sighting] // beacons of nodes that are not members
	gone  bag[*ghost]    // members that went without a word
	avoid map[ID]*avoid

	healAt   time.Duration
	split    time.Duration // when members were last lost
	beaconAt time.Duration
	step     int // beacons since the node was last alone

	prune prune
}

type dial struct{ since time.Duration }

type pinned struct {
	addrs   []string
	next    time.Duration
	backoff time.Duration
}

type sighting struct {
	addrs   []string
	seeking bool
	at      time.Duration // last heard
	first   time.Duration
	meet    time.Duration // when to dial it if nobody else has brought it in
}

type ghost struct {
	addrs []string
	left  time.Duration
}

// avoid is whom not to dial until a time, and whose links to refuse.
type avoid struct {
	until   time.Duration
	refused time.Duration
	backoff time.Duration
}

const (
	dialPatience  = 15 * time.Second
	backoffFirst  = 250 * time.Millisecond
	backoffMost   = time.Minute
	pinBackoff    = 15 * time.Second // the most, for links that were asked for
	stable        = 10 * time.Second // a link that lived so long has proved itself
	sightingLife  = 30 * time.Second
	ghostLife     = time.Hour
	degreeMost    = 64
	autoFull      = 12 // links of each node in a small mesh with DegreeAuto
	autoDegree    = 8  // in a larger one
	firstToDial   = 500 * time.Millisecond
	healFirst     = 30 * time.Second // how long a split is fresh
	healPerSecond = 8                // dials of all nodes together while it is
)

func newSeeker(m *Machine) seeker {
	return seeker{at: never, healAt: never, avoid: map[ID]*avoid{}, beaconAt: m.between(0, 50*time.Millisecond)}
}

// target is how many links the node wants.
func (m *Machine) target() int {
	switch d := m.cfg.Degree; {
	case d >= 0:
		return min(d, degreeMost)
	default:
		if n := len(m.table.reached) + m.seek.seen.size() - 1; n <= autoFull {
			return n
		}
		return autoDegree
	}
}

// hurry makes the next look due soon.
func (s *seeker) hurry(m *Machine) { sooner(&s.at, m.now+m.between(0, 20*time.Millisecond)) }

// maintain dials and trims as it is needed, and says when to look again.
func (m *Machine) maintain() {
	s := &m.seek
	s.at = never
	s.sweep(m.now)
	m.redialPins()
	m.meetStrangers()
	m.seekLinks()
	m.heal()
	m.trim()
	m.beacon()
}

// sweep forgets what is over.
func (s *seeker) sweep(now time.Duration) {
	for i := s.dials.size() - 1; i >= 0; i-- {
		if now-s.dials.items[i].since > dialPatience {
			s.dials.remove(s.dials.ids[i])
		}
	}
	for i := s.seen.size() - 1; i >= 0; i-- {
		if now-s.seen.items[i].at > sightingLife {
			s.seen.remove(s.seen.ids[i])
		}
	}
	for i := s.gone.size() - 1; i >= 0; i-- {
		if now-s.gone.items[i].left > ghostLife {
			s.gone.remove(s.gone.ids[i])
		}
	}
	for id, a := range s.avoid {
		if now-a.until > 2*backoffMost && now > a.refused {
			delete(s.avoid, id)
		}
	}
}

func (s *seeker) avoided(id ID) *avoid {
	a := s.avoid[id]
	if a == nil {
		a = &avoid{}
		s.avoid[id] = a
	}
	return a
}

// free reports whether a node may be dialled now.
func (m *Machine) free(id ID) bool {
	if id == m.cfg.Self || m.links[id] != nil {
		return false
	}
	if _, busy := m.seek.dials.get(id); busy {
		return false
	}
	a := m.seek.avoid[id]
	return a == nil || m.now >= a.until
}

func (m *Machine) dial(id ID, addrs []string) {
	m.seek.dials.put(id, &dial{m.now})
	m.do(Dial{ID: id, Addrs: append([]string(nil), addrs...)})
}

func (s *seeker) answered(id ID) { s.dials.remove(id) }

func (m *Machine) dialFailed(id ID) {
	s := &m.seek
	if _, ok := s.dials.get(id); !ok {
		return
	}
	s.dials.remove(id)
	m.backOff(id)
	s.seen.remove(id) // until its next beacon
	s.hurry(m)
}

// backOff puts off the next dial to id, longer each time.
func (m *Machine) backOff(id ID) {
	a := m.seek.avoided(id)
	a.backoff = min(max(2*a.backoff, backoffFirst), backoffMost)
	a.until = max(a.until, m.now+m.between(a.backoff/2, a.backoff))
	if p, ok := m.seek.pins.get(id); ok {
		p.backoff = min(max(2*p.backoff, backoffFirst), pinBackoff)
		p.next = m.now + m.between(p.backoff/2, p.backoff)
		sooner(&m.seek.at, p.next)
	}
}

// lostLink is called with a link that has ended.
func (s *seeker) lostLink(m *Machine, l *link, keepOff time.Duration) {
	a := s.avoided(l.id)
	if m.now-l.since > stable {
		a.backoff = 0
		if p, ok := s.pins.get(l.id); ok {
			p.backoff = 0
		}
	}
	m.backOff(l.id)
	a.until = max(a.until, m.now+keepOff)
	if s.prune.with == l.id {
		s.prune.with = ""
	}
	if len(m.order) == 0 {
		s.step = 0
		sooner(&s.beaconAt, m.now+m.between(0, 100*time.Millisecond))
	}
}

// refuse keeps a node off for a while, also when it dials.
func (s *seeker) refuse(m *Machine, id ID, hold time.Duration) {
	a := s.avoided(id)
	a.refused = max(a.refused, m.now+hold)
	a.until = max(a.until, a.refused)
}

// unwanted says why a new link is refused, "" when it is not. Whoever asks for
// it by name gets it.
func (s *seeker) unwanted(m *Machine, l *link) string {
	a := s.avoid[l.id]
	if a == nil || m.now >= a.refused || l.pinned || s.pinned(l.id) {
		return ""
	}
	return "the link to it was ended on purpose a moment ago"
}

func (s *seeker) pinned(id ID) bool { _, ok := s.pins.get(id); return ok }

func (s *seeker) unpin(id ID) { s.pins.remove(id) }

func (m *Machine) pin(p Pin) {
	s := &m.seek
	if p.ID == m.cfg.Self || p.ID == "" {
		return
	}
	if a := s.avoid[p.ID]; a != nil {
		a.refused, a.until = 0, 0
	}
	s.pins.put(p.ID, &pinned{addrs: append([]string(nil), p.Addrs...), next: m.now})
	s.at = m.now
}

func (m *Machine) hangup(id ID) {
	m.seek.unpin(id)
	m.seek.refuse(m, id, m.cfg.Hold)
	if l := m.links[id]; l != nil {
		m.send(l, []byte{kindBye, byeHangup})
		m.drop(l, "hung up", m.cfg.Hold)
	}
}

func (m *Machine) redialPins() {
	s := &m.seek
	for i, p := range s.pins.items {
		id := s.pins.ids[i]
		if _, busy := s.dials.get(id); busy || m.links[id] != nil {
			continue
		}
		if m.now < p.next {
			sooner(&s.at, p.next)
			continue
		}
		m.dial(id, p.addrs)
	}
}

// seekLinks dials others while the node has too few links: few at a time, as
// others dial too.
func (m *Machine) seekLinks() {
	s := &m.seek
	target := m.target()
	lack := target - len(m.order)
	for slots := max(1, lack/3) - s.dials.size(); slots > 0 && lack-s.dials.size() > 0; slots-- {
		id, addrs, ok := m.candidate(target)
		if !ok {
			return
		}
		m.dial(id, addrs)
		sooner(&s.at, m.now+m.between(20*time.Millisecond, 60*time.Millisecond))
	}
}

// candidate finds somebody to dial: of some members by chance the one with the
// fewest links, else a stranger.
func (m *Machine) candidate(target int) (ID, []string, bool) {
	members := m.table.reached
	tries, few := 6, target >= len(members)-1
	if few || len(members) <= tries {
		tries = len(members)
	}
	var best *node
	start := m.rand.IntN(len(members))
	for i := range tries {
		n := members[(start+i)%len(members)]
		if !few && len(members) > tries {
			n = members[m.rand.IntN(len(members))]
		}
		if n.context != m.cfg.Context || !m.free(n.id) || few && m.theyDial(n.key, n.joined) {
			continue
		}
		if best == nil || len(n.declared) < len(best.declared) {
			best = n
		}
	}
	if best != nil {
		return best.id, best.addrs, true
	}
	return m.stranger()
}

// theyDial reports whether the other end of a link that both want is to dial.
func (m *Machine) theyDial(key uint64, known time.Duration) bool {
	return key < m.table.self.key && m.now-known < firstToDial
}

// stranger picks one of those seen but not reached.
func (m *Machine) stranger() (ID, []string, bool) {
	s := &m.seek
	if s.seen.size() == 0 {
		return "", nil, false
	}
	start := m.rand.IntN(s.seen.size())
	for i := range min(s.seen.size(), 16) {
		j := (start + i) % s.seen.size()
		if id := s.seen.ids[j]; m.free(id) {
			return id, s.seen.items[j].addrs, true
		}
	}
	return "", nil, false
}
