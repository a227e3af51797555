package membership

import (
	"fmt"
	"slices"
	"time"
)

// pulse is this node's own rhythm.
type pulse struct {
	at      time.Duration
	slow    int           // how many times slower than configured
	starved time.Duration // when a tick last came late
	lag     time.Duration // how late messages come of late, on most links
	busy    bool          // they came late when last looked at
}

const (
	silences = 3.2 // heartbeats that must be missing before a link is dead
	gaps     = 2.2 // times the longest silence seen of late
	once     = 4   // heartbeats, the most that a single silence adds up to
	calm     = 10 * time.Second
	lonely   = 3 * time.Second // between looks at old things where nobody waits for a heartbeat
)

// measureLag takes the median of the links, so that one neighbour with a strange
// clock has no say. Where messages wait long, here or there, heartbeats get
// slower; but not where they came late only until just now, as behind a cable
// that was out for a moment.
func (m *Machine) measureLag() {
	lags, last := make([]time.Duration, len(m.order)), make([]time.Duration, len(m.order))
	for i, l := range m.order {
		lags[i], last[i] = l.lag, l.late
	}
	m.pulse.lag = median(lags)
	before := m.pulse.busy
	m.pulse.busy = min(m.pulse.lag, median(last)) > m.cfg.Heartbeat/2
	if before && m.pulse.busy && (m.pulse.slow == 1 || m.now-m.pulse.starved > 2*time.Second) {
		m.pulse.slow = min(2*m.pulse.slow, slowest)
		m.pulse.starved = m.now
	}
}

func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// measure learns from a beat how long messages wait: by how much the difference
// of the clocks is above the least seen. The least grows a little, as clocks drift.
func (l *link) measure(now time.Duration, clock uint64) {
	d := now - time.Duration(min(clock, 1<<43))*time.Millisecond
	if l.base == never {
		l.base = d
	}
	l.base = min(d, l.base+l.interval/1000)
	l.late = d - l.base
	if l.late > l.lag {
		l.lag += (l.late - l.lag) / 2
	} else {
		l.lag += (l.late - l.lag) / 8
	}
}

// relief is what to wait longer where the machine is too busy to be in time:
// fewer, larger batches cost less.
func (m *Machine) relief() time.Duration { return min(2*m.pulse.lag, time.Second) }

func (m *Machine) interval() time.Duration { return m.cfg.Heartbeat * time.Duration(m.pulse.slow) }

// starved is called when this process got no time to run for as long as late.
// What others said in that time may still wait to be read: their silence starts
// anew. And a machine so busy should have fewer heartbeats to send.
func (m *Machine) starved(late time.Duration) {
	m.stats.LateTicks++
	m.pulse.starved = m.now
	m.pulse.slow = min(2*m.pulse.slow, slowest)
	m.pulse.at = m.now
	for _, l := range m.order {
		l.heard = min(m.now, l.heard+late+m.cfg.Heartbeat)
	}
}

// beat shows the neighbours that the node lives, and looks after old things.
func (m *Machine) beat() {
	if m.pulse.slow > 1 && m.now-m.pulse.starved > calm {
		m.pulse.slow /= 2
		m.pulse.starved = m.now
	}
	m.measureLag()
	for _, l := range m.order {
		l.gap -= l.gap / 32
		l.again -= l.again / 32
		if l.ready {
			m.sendBeat(l, false)
		}
	}
	m.pulse.at = m.now + m.between(m.interval()*29/30, m.interval())
	if len(m.order) == 0 {
		m.pulse.at = m.now + lonely // the first link wakes it
	}
	m.table.expire(m.now, m.cfg.MSA)
	sooner(&m.seek.at, m.now)
}

func (m *Machine) sendBeat(l *link, probe bool) {
	m.send(l, beat{probe: probe, interval: uint64(m.interval() / time.Millisecond), clock: uint64(m.now / time.Millisecond), digest: m.table.digest}.encode())
}

// alive notes a sign of life, and learns from how long it took: where messages
// come late because a machine is busy, more patience is due.
func (l *link) alive(now time.Duration) {
	l.again = max(l.again, min(l.gap, now-l.heard))
	l.gap = max(l.gap, now-l.heard)
	l.heard, l.probed = now, false
}

// timeout is how long a link may be silent. One silence may have been a cable
// that was out for a moment, and teaches less than one that came again.
func (m *Machine) timeout(l *link) time.Duration {
	beat := float64(max(l.interval, m.interval()))
	t := max(silences*beat, min(gaps*float64(l.gap), once*beat), min(gaps*float64(l.again), float64(m.cfg.MSA)))
	return time.Duration(t) + m.relief()
}

// deadline is when the next link is to be probed or given up.
func (m *Machine) deadline() time.Duration {
	at := never
	for _, l := range m.order {
		t := m.timeout(l)
		switch {
		case !l.probed:
			t = t * 4 / 7
		case m.now-l.heard >= t: // spared, as most links are silent
			t += m.cfg.Heartbeat
		}
		at = min(at, l.heard+t)
	}
	return at
}

// checkLinks probes who is silent, and gives up who stays so. When most links
// are silent at once the fault is rather here, and they get some more time.
func (m *Machine) checkLinks() {
	var silent []*link
	for _, l := range m.order {
		switch t := m.timeout(l); {
		case m.now-l.heard >= t:
			silent = append(silent, l)
		case !l.probed && m.now-l.heard >= t*4/7:
			l.probed = true
			if l.ready {
				m.sendBeat(l, true)
			}
		}
	}
	if len(silent) > 1 && 2*len(silent) > len(m.order) {
		patient := silent[:0]
		for _, l := range silent {
			if m.now-l.heard >= m.timeout(l)+m.cfg.Heartbeat {
				patient = append(patient, l)
			}
		}
		silent = patient
	}
	for _, l := range silent {
		m.stats.Suspected++
		m.drop(l, fmt.Sprintf("nothing was heard for %v", (m.now-l.heard).Round(time.Millisecond)), 0)
	}
}

func (m *Machine) onBeat(l *link, b []byte) error {
	p, err := decodeBeat(b)
	if err != nil {
		return err
	}
	l.interval = min(max(time.Duration(min(p.interval, 1<<20))*time.Millisecond, 100*time.Millisecond), maxInterval)
	l.measure(m.now, p.clock)
	if l.late < m.cfg.Heartbeat/16 {
		m.chime()
	}
	if p.probe {
		m.sendBeat(l, false)
	}
	m.compareDigest(l, p.digest)
	return nil
}

// chime lets the own heartbeat come with that of a neighbour, when it is due
// soon, so that all beat at the same moment: a machine that is woken once for
// many messages does less than one that is woken for each.
func (m *Machine) chime() {
	if m.pulse.at-m.now < m.cfg.Heartbeat/2 {
		m.pulse.at = m.now
	}
}
