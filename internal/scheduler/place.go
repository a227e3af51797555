package scheduler

import "math"

// state is a host while VMs are placed.
type state struct {
	load                float64
	vms, cpus, mem, net int // committed
	// What must not be exceeded, math.MaxInt for no limit; tolerates shrinks
	// with the VMs that come.
	maxVMs, maxCPUs, maxMem, tolerates int
	physical                           int // MiB
	per                                float64
	added                              int32
	down                               bool
}

// placer owns the hosts of one pass.
type placer struct {
	problem *Problem
	bundled *bundled
	hosts   []state
	places  [][]int32
	near    queue   // hosts that may hold the demand at hand
	over    queue   // hosts that hold it only beyond their physical memory
	aside   []int32 // hosts that do not hold it
	// Bounds of what the hosts in over and aside have: a demand beyond them
	// finds nothing there, which saves the look.
	overFree               int
	asideMem, asideCPUs    int
	asideVMs, asideSharing int
}

func newPlacer(p *Problem, b *bundled) *placer {
	s := &placer{problem: p, bundled: b, hosts: make([]state, len(p.Hosts))}
	for i := range p.Hosts {
		s.hosts[i] = p.state(&p.Hosts[i])
	}
	return s
}

// seats makes room for the places, all in one piece.
func (s *placer) seats() {
	p := s.problem
	s.places = make([][]int32, len(p.Groups))
	total := 0
	for i := range p.Groups {
		total += p.Groups[i].Len()
	}
	room := make([]int32, total)
	for i := range p.Groups {
		n := p.Groups[i].Len()
		s.places[i], room = room[:n:n], room[n:]
	}
}

func (p *Problem) state(h *Host) state {
	s := state{
		vms: h.VMs, cpus: h.CPUCommit, mem: h.MemCommit, net: h.NetCommit, physical: h.MemMB, down: h.Down != "",
		maxVMs: math.MaxInt, maxCPUs: p.Limits.cpus(h.CPUs), maxMem: p.Limits.memory(h.MemMB), tolerates: math.MaxInt,
	}
	if h.Limit >= 0 {
		s.maxVMs = h.Limit
	}
	if p.Limits.VMs > 0 {
		s.maxVMs = min(s.maxVMs, p.Limits.VMs)
	}
	if h.Tolerates > 0 {
		s.tolerates = h.Tolerates
	}
	switch p.Metric {
	case MemCommit:
		s.per = float64(max(1, h.MemMB))
	case NetCommit:
		s.per = 1
	default:
		s.per = float64(max(1, h.CPUs))
	}
	s.measure(p.Metric)
	return s
}

func (s *state) measure(m Metric) {
	commit := s.cpus
	switch m {
	case MemCommit:
		commit = s.mem
	case NetCommit:
		commit = s.net
	}
	s.load = float64(commit) / s.per
}

// holds reports whether the limits allow the demand.
func (s *state) holds(d *demand) bool {
	return !s.down && s.shares(d) && s.lacks(d) == 0
}

// The resources that limits are about.
type resource uint8

const (
	memory resource = 1 << iota
	cpus
	vms
)

// lacks tells what the host has too little of.
func (s *state) lacks(d *demand) (r resource) {
	if d.mem > s.maxMem-s.mem && d.mem > 0 {
		r |= memory
	}
	if d.cpus > s.maxCPUs-s.cpus && d.cpus > 0 {
		r |= cpus
	}
	if d.vms > s.maxVMs-s.vms {
		r |= vms
	}
	return r
}

// shares reports whether the VMs there and those that come accept each other.
func (s *state) shares(d *demand) bool {
	return s.vms+d.vms <= min(s.tolerates, d.tolerates)
}

// has reports whether the demand fits the physical memory.
func (s *state) has(d *demand) bool { return d.mem == 0 || s.mem+d.mem <= s.physical }

func (s *state) take(d *demand, m Metric) {
	s.vms += d.vms
	s.cpus += d.cpus
	s.mem += d.mem
	s.net += d.nics
	s.tolerates = min(s.tolerates, d.tolerates)
	s.added += int32(d.vms)
	s.measure(m)
}

// noFit says that a VM, with what follows it, has no place.
type noFit struct {
	placer *placer
	seat   seat
	demand demand
	host   int32 // where it had to be, -1 for anywhere
}

func (n *noFit) Error() string { return "does not fit" }

// place goes through the units, of which those that must be on some host come
// first.
func (s *placer) place(units []unit, demands []demand) error {
	s.seats()
	ready := int32(-1)
	for i := range units {
		u := &units[i]
		d := &demands[u.class]
		if !u.fixed && ready != u.class {
			if ready < 0 {
				s.open()
			} else {
				s.reopen(d)
			}
			ready = u.class
		}
		if err := s.unit(u, d); err != nil {
			return err
		}
	}
	return nil
}

func (s *placer) unit(u *unit, d *demand) error {
	if u.vm >= 0 {
		return s.seat(seat{u.group, u.vm}, d)
	}
	leaders := s.bundled.leaders[u.group]
	for vm := range u.size {
		if len(leaders) > 0 && leaders[0] == vm {
			leaders = leaders[1:]
			continue
		}
		if err := s.seat(seat{u.group, vm}, d); err != nil {
			return err
		}
	}
	return nil
}

// seat places one VM and those that follow it.
func (s *placer) seat(at seat, d *demand) error {
	host := s.bundled.fixed[at.group]
	if host < 0 {
		q := s.next(d)
		if q == nil {
			return &noFit{s, at, *d, -1}
		}
		host = q.hosts[0]
		s.hosts[host].take(d, s.problem.Metric)
		q.down(0)
	} else if err := s.put(at, d, host); err != nil {
		return err
	}
	s.places[at.group][at.vm] = host
	if s.bundled.with == nil {
		return nil
	}
	for _, g := range s.bundled.dragging[at] {
		for i := range s.places[g] {
			s.places[g][i] = host
		}
	}
	return nil
}

// put places a VM on a given host.
func (s *placer) put(at seat, d *demand, host int32) error {
	if !s.hosts[host].holds(d) {
		return &noFit{s, at, *d, host}
	}
	s.hosts[host].take(d, s.problem.Metric)
	return nil
}

// open puts every host that is up into the queue.
func (s *placer) open() {
	s.near.states, s.over.states = s.hosts, s.hosts
	for i := range s.hosts {
		if !s.hosts[i].down {
			s.near.hosts = append(s.near.hosts, int32(i))
		}
	}
	s.near.order()
}

// reopen looks again, for another demand, at the hosts that the last one left
// out. There are few, or they have too little, so that a queue of many small
// groups costs little more than one of a few large ones.
func (s *placer) reopen(d *demand) {
	if len(s.over.hosts) > 0 && (d.mem == 0 || d.mem <= s.overFree) {
		again := s.over.hosts
		s.over.hosts, s.overFree = again[:0], 0
		for _, h := range again {
			if s.hosts[h].has(d) {
				s.near.push(h)
				continue
			}
			s.over.hosts = append(s.over.hosts, h)
			s.overFree = max(s.overFree, s.hosts[h].physical-s.hosts[h].mem)
		}
		s.over.order()
	}
	if d.mem <= s.asideMem && d.cpus <= s.asideCPUs && d.vms <= min(s.asideVMs, s.asideSharing) {
		again := s.aside
		s.aside, s.asideMem, s.asideCPUs, s.asideVMs, s.asideSharing = again[:0], 0, 0, 0, 0
		for _, h := range again {
			switch {
			case !s.hosts[h].holds(d):
				s.exclude(h)
			case s.hosts[h].has(d):
				s.near.push(h)
			default:
				s.exceed(h)
			}
		}
	}
}

// exceed puts a host into over.
func (s *placer) exceed(h int32) {
	s.over.push(h)
	s.overFree = max(s.overFree, s.hosts[h].physical-s.hosts[h].mem)
}

// exclude puts a host aside.
func (s *placer) exclude(h int32) {
	s.aside = append(s.aside, h)
	state := &s.hosts[h]
	s.asideMem = max(s.asideMem, state.free(memory))
	s.asideCPUs = max(s.asideCPUs, state.free(cpus))
	s.asideVMs = max(s.asideVMs, state.free(vms))
	s.asideSharing = max(s.asideSharing, state.tolerates-state.vms)
}

// next returns the queue whose first host is to take the demand, nil if none
// holds it. Hosts only ever get fuller, so what does not hold it is put aside.
func (s *placer) next(d *demand) *queue {
	for len(s.near.hosts) > 0 {
		h := s.near.hosts[0]
		holds, has := s.hosts[h].holds(d), s.hosts[h].has(d)
		if holds && has {
			return &s.near
		}
		s.near.pop()
		if holds {
			s.exceed(h)
		} else {
			s.exclude(h)
		}
	}
	for len(s.over.hosts) > 0 {
		h := s.over.hosts[0]
		if s.hosts[h].holds(d) {
			return &s.over
		}
		s.over.pop()
		s.exclude(h)
	}
	return nil
}

func (s *placer) result() *Result {
	r := &Result{Hosts: make([]Prediction, len(s.hosts)), Places: s.places}
	for i := range s.hosts {
		h := &s.hosts[i]
		to := &r.Hosts[i]
		*to = Prediction{Host: s.problem.Hosts[i], New: int(h.added)}
		to.VMs, to.CPUCommit, to.MemCommit, to.NetCommit = h.vms, h.cpus, h.mem, h.net
		if h.tolerates < math.MaxInt {
			to.Tolerates = h.tolerates
		}
	}
	return r
}
