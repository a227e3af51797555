package main

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"minimega/pkg/meshage/membership"
	"minimega/pkg/meshage/membership/sim"
)

// result is what one run showed.
type result struct {
	loss   float64
	nodes  int
	parted bool // it was split

	start, split, heal, kill phase
	idle                     float64 // bytes per second and node
	idleMessages             float64 // messages per second and node
	state                    float64 // bytes of memory per node
	degree, degreeMost       float64
	whole, blind, after      sim.Reach // all alive; just killed, nobody knows; known
	versions, suspected      float64   // per node, whole run; links given up
}

// phase is how long it took until all were right again, and what it cost.
type phase struct {
	took  time.Duration
	bytes float64 // per node and second, from the cause until all were right
	total float64 // per node
}

const (
	limit  = 2 * time.Minute // virtual, for each phase
	spread = time.Second     // in which the nodes start
)

// run lets a mesh live through a start, if wanted a split, and a massacre.
func run(nodes int, loss float64, seed uint64, split bool) (*result, error) {
	r := &result{loss: loss, nodes: nodes, parted: split}
	before := heap()
	s := sim.New(sim.Options{Seed: seed, Loss: loss, Degree: membership.DegreeAuto})
	for range nodes {
		s.Add(time.Duration(s.Rand().Int64N(int64(spread))))
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"start", func() error { return r.start.measure(s, func() { s.Run(spread) }) }},
		{"idle", func() error { r.rest(s); r.state = (heap() - before) / float64(nodes); return nil }},
		{"broadcast", func() error { r.whole = broadcast(s); return nil }},
		{"split", func() error {
			if !split {
				return nil
			}
			return r.part(s)
		}},
		{"kill", func() error { return r.massacre(s) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("loss %.0f %%, %s: %w", 100*loss, step.name, err)
		}
	}
	for _, n := range s.Nodes {
		if n.Alive {
			st := n.Machine.Stats()
			r.versions += float64(st.Published) / float64(alive(s))
			r.suspected += float64(st.Suspected)
		}
	}
	return r, nil
}

// measure lets a cause act, and waits until all are right.
func (p *phase) measure(s *sim.Net, cause func()) error {
	from, bytes := s.Now(), sent(s)
	cause()
	began := s.Now()
	took, ok := s.Converge(limit, time.Second)
	if !ok {
		return fmt.Errorf("%d nodes have wrong members after %v", s.Wrong(), limit)
	}
	if s.Twice > 0 {
		return fmt.Errorf("%d members joined or left twice", s.Twice)
	}
	p.took = took
	p.total = float64(sent(s)-bytes) / float64(alive(s))
	p.bytes = p.total / (began - from + took).Seconds()
	return nil
}

// rest measures a mesh in which nothing happens.
func (r *result) rest(s *sim.Net) {
	s.Run(15 * time.Second)
	bytes, messages := sent(s), int64(0)
	for _, n := range s.Nodes {
		messages -= n.Messages
		r.degree += float64(n.Degree()) / float64(r.nodes)
		r.degreeMost = max(r.degreeMost, float64(n.Degree()))
	}
	const seconds = 5
	s.Run(seconds * time.Second)
	for _, n := range s.Nodes {
		messages += n.Messages
	}
	r.idle = float64(sent(s)-bytes) / seconds / float64(r.nodes)
	r.idleMessages = float64(messages) / seconds / float64(r.nodes)
}

// part cuts a tenth off for longer than records of the lost are kept, and lets
// it come back.
func (r *result) part(s *sim.Net) error {
	if err := r.split.measure(s, func() { s.Split(func(i int) int { return i % 10 / 9 }) }); err != nil {
		return err
	}
	s.Run(12 * time.Second)
	if err := r.heal.measure(s, func() { s.Split(func(int) int { return 0 }) }); err != nil {
		return err
	}
	s.Run(3 * time.Second)
	return nil
}

// massacre ends 30 % of the nodes without a word, and broadcasts at that moment
// and when all know.
func (r *result) massacre(s *sim.Net) error {
	var blind *sim.Rumour
	err := r.kill.measure(s, func() {
		for _, i := range s.Rand().Perm(r.nodes - 1)[:r.nodes*3/10] {
			s.Kill(i+1, false)
		}
		blind = s.Broadcast(0)
	})
	if err != nil {
		return err
	}
	s.Run(3 * time.Second)
	r.blind, r.after = blind.Reach(), broadcast(s)
	return nil
}

func broadcast(s *sim.Net) sim.Reach {
	b := s.Broadcast(0)
	s.Run(3 * time.Second)
	return b.Reach()
}

func sent(s *sim.Net) (sum int64) {
	for _, n := range s.Nodes {
		sum += n.Sent
	}
	return sum
}

func alive(s *sim.Net) (n int) {
	for _, x := range s.Nodes {
		if x.Alive {
			n++
		}
	}
	return n
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// print writes a line for the mesh as it was built, and one for what 30 %
// killed did to it.
func (r *result) print(w io.Writer) {
	fmt.Fprintf(w, "loss %.0f %%: converged %v after the last start, %.0f kB/s (%.1f MB) per node; idle %.1f kB/s in %.0f messages/s; state %.0f kB; links %.1f, most %.0f; broadcast %v\n",
		100*r.loss, ms(r.start.took), r.start.bytes/1e3, r.start.total/1e6, r.idle/1e3, r.idleMessages, r.state/1e3, r.degree, r.degreeMost, reach(r.whole))
	if r.parted {
		fmt.Fprintf(w, "    a tenth split off: known after %v; healed %v after the way was free, %.1f MB per node\n",
			ms(r.split.took), ms(r.heal.took), r.heal.total/1e6)
	}
	fmt.Fprintf(w, "loss %.0f %%, 30 %% killed: known by all after %v, %.0f kB/s per node; broadcast at that moment %v; afterwards %v\n",
		100*r.loss, ms(r.kill.took), r.kill.bytes/1e3, reach(r.blind), reach(r.after))
	fmt.Fprintf(w, "    records made per node %.1f; links given up for silence %.0f\n", r.versions, r.suspected)
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func reach(r sim.Reach) string {
	return fmt.Sprintf("reached %d of %d (median %v, last %v, %.1f copies each)", r.Reached, r.Alive, ms(r.Median), ms(r.Last), r.Copies)
}
