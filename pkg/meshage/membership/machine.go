package membership

import (
	"math"
	"math/rand/v2"
	"time"
)

// slowest is how many times slower than configured heartbeats may become.
const slowest = 4

// Machine is the membership of one node. It is not safe for use by several
// goroutines at once. Times given to it must not go back; what comes from
// time.Now does not, whatever happens to the clock.
type Machine struct {
	cfg   Config
	rand  *rand.Rand
	epoch time.Time
	now   time.Duration // since epoch: the time of the event at hand
	want  time.Duration // when the next tick is due
	out   []Action
	stats Stats
	left  bool // Leave was handled

	table table
	links map[ID]*link
	order []*link // by key, so that runs can be repeated

	own   publisher
	flood flood
	pulse pulse
	seek  seeker

	searchAt time.Duration
}

// never is a time that does not come.
const never = time.Duration(math.MaxInt64)

// New makes a machine that has no links yet. Its first Tick is due at once.
func New(cfg Config, now time.Time) (*Machine, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m := &Machine{cfg: cfg, rand: cfg.Rand, epoch: now, table: newTable(), links: map[ID]*link{}, searchAt: never}
	m.table.self = m.table.at(keyOf(cfg.Self))
	m.own = publisher{version: cfg.Start, at: never}
	m.flood = flood{at: never, last: -batchQuiet}
	m.pulse = pulse{slow: 1, at: m.between(0, cfg.Heartbeat)}
	m.seek = newSeeker(m)
	m.publish()
	self := m.table.self
	self.member, self.was, self.asBoot = true, true, cfg.Boot
	m.table.find()
	m.out = nil
	return m, nil
}

// Handle takes in one event, and does what is due.
func (m *Machine) Handle(now time.Time, e Event) []Action {
	if m.left {
		return nil
	}
	m.enter(now)
	switch e := e.(type) {
	case LinkUp:
		m.linkUp(e.ID)
	case LinkDown:
		m.linkDown(e.ID)
	case Message:
		m.message(e.From, e.Data)
	case Seen:
		m.seen(e)
	case DialFailed:
		m.dialFailed(e.ID)
	case Pin:
		m.pin(e)
	case Hangup:
		m.hangup(e.ID)
	case SetDegree:
		m.cfg.Degree = max(e.Degree, DegreeAuto)
		m.seek.hurry(m)
	case SetAddrs:
		m.setAddrs(e.Addrs)
	case Leave:
		return m.leave()
	}
	return m.exit()
}

// Tick does what is due. It may be called at any time, and is wanted at Next.
func (m *Machine) Tick(now time.Time) []Action {
	if m.left {
		return nil
	}
	m.enter(now)
	return m.exit()
}

// Next returns when the machine wants its next Tick, centuries ahead after
// Leave. It may change with every Handle and Tick.
func (m *Machine) Next() time.Time { return m.epoch.Add(m.want) }

// enter sets the time. When this call comes much later than was asked for, the
// process got no time to run, so that the silence of others proves nothing.
func (m *Machine) enter(now time.Time) {
	m.out = nil
	m.now = max(m.now, now.Sub(m.epoch))
	if late := m.now - m.want; m.want > 0 && late > m.cfg.Heartbeat/2 {
		m.starved(late)
	}
}

// exit does what is due, and works out when to come back.
func (m *Machine) exit() []Action {
	m.checkLinks()
	if m.now >= m.searchAt {
		m.search()
	}
	if m.now >= m.pulse.at {
		m.beat()
	}
	if m.now >= m.seek.at {
		m.maintain()
	}
	if m.now >= m.own.at {
		m.publish()
	}
	if m.now >= m.flood.at {
		m.flush()
	}
	m.want = min(m.searchAt, m.pulse.at, m.seek.at, m.own.at, m.flood.at, m.deadline())
	out := m.out
	m.out = nil
	return out
}

func (m *Machine) do(a Action) { m.out = append(m.out, a) }

// between returns a random duration from low to high.
func (m *Machine) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(m.rand.Int64N(int64(high-low)))
}

// sooner moves a timer forward, never back.
func sooner(at *time.Duration, t time.Duration) { *at = min(*at, t) }

func (m *Machine) time(t time.Duration) time.Time { return m.epoch.Add(t) }

// leave says farewell, with a record that tells everybody that the node ended
// on purpose.
func (m *Machine) leave() []Action {
	m.own.gone = true
	m.table.declare(m.table.self, nil)
	m.publish()
	for _, l := range m.order {
		if l.ready {
			m.do(Send{l.id, appendUpdate(nil, m.table.self)})
		}
		m.do(Send{l.id, []byte{kindBye, byeLeave}})
		m.do(Drop{ID: l.id, Why: "this node leaves the mesh"})
	}
	clear(m.links)
	m.order, m.left, m.want = nil, true, never
	m.table.find()
	out := m.out
	m.out = nil
	return out
}
