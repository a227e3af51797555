package membership_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"minimega/pkg/meshage/membership"
	"minimega/pkg/meshage/membership/sim"
)

// line makes n nodes that can reach only their neighbours in the line.
func line(t *testing.T, n int, o sim.Options) *sim.Net {
	t.Helper()
	if o.CanDial == nil {
		o.CanDial = func(a, b int) bool { return a-b == 1 || b-a == 1 }
	}
	s := sim.New(o)
	for range n {
		s.Add(0)
	}
	s.Run(10 * time.Millisecond)
	for i := range n - 1 {
		s.Connect(i, i+1)
	}
	converge(t, s, 2*time.Second)
	return s
}

func converge(t *testing.T, s *sim.Net, limit time.Duration) time.Duration {
	t.Helper()
	took, ok := s.Converge(limit, 500*time.Millisecond)
	if !ok {
		t.Fatalf("%d of %d nodes have wrong members after %v", s.Wrong(), len(s.Nodes), limit)
	}
	if s.Twice > 0 {
		t.Fatalf("%d members joined or left twice", s.Twice)
	}
	return took
}

func TestRouteAlongALine(t *testing.T) {
	s := line(t, 4, sim.Options{Seed: 1})
	m := s.Nodes[0].Machine
	if via, ok := m.NextHop(sim.ID(3)); !ok || via != sim.ID(1) {
		t.Errorf("next hop to the far end is %x, %v", via, ok)
	}
	if path := m.Path(sim.ID(3)); !slices.Equal(path, []membership.ID{sim.ID(1), sim.ID(2), sim.ID(3)}) {
		t.Errorf("path %x", path)
	}
	if d, ok := m.Member(sim.ID(3)); !ok || d.Hops != 3 || d.Name != "node3" || d.Via != sim.ID(1) {
		t.Errorf("member %+v, %v", d, ok)
	}
	if n := m.Neighbours(sim.ID(2)); len(n) != 2 {
		t.Errorf("node2 has neighbours %x", n)
	}
	// When the middle breaks both halves know; the ends can be told apart.
	s.Cut(1, 2)
	s.Judge(func(a, b *sim.Node) bool { return (number(a) < 2) == (number(b) < 2) })
	if took, ok := s.Converge(time.Second, 100*time.Millisecond); !ok {
		t.Fatal("the break is not known after", took)
	}
	if _, ok := m.NextHop(sim.ID(3)); ok {
		t.Error("there is still a way to the far end")
	}
	// Nobody was told to, but the two that can meet do so again.
	s.Judge(sim.Connected)
	converge(t, s, 5*time.Second)
}

func number(n *sim.Node) int { return int(n.ID[3]) - 1 + int(n.ID[2])<<8 }

func TestDeathIsKnown(t *testing.T) {
	for _, said := range []bool{true, false} {
		s := full(t, 50, sim.Options{Seed: 2, Degree: membership.DegreeAuto})
		s.Kill(7, said)
		took := converge(t, s, 3*time.Second)
		t.Logf("said by the transport %v: all know after %v", said, took)
		if limit := 2500 * time.Millisecond; took > limit || said && took > 200*time.Millisecond {
			t.Errorf("said %v: it took %v", said, took)
		}
	}
}

func full(t *testing.T, n int, o sim.Options) *sim.Net {
	t.Helper()
	s := sim.New(o)
	for range n {
		s.Add(0)
	}
	converge(t, s, 5*time.Second)
	s.Run(time.Second)
	return s
}

// A host whose cable was out for a moment, not long enough to be lost, is given
// up in time when it goes out for good.
func TestDeathAfterSilence(t *testing.T) {
	for seed := range uint64(50) {
		s := full(t, 10, sim.Options{Seed: 100 + seed, Degree: membership.DegreeAuto})
		s.Run(20 * time.Second) // until heartbeats are as fast as they get
		apart := func(group int) {
			s.Split(func(node int) int {
				if node == 7 {
					return group
				}
				return 0
			})
		}
		apart(1)
		s.Run(1450 * time.Millisecond)
		apart(0)
		converge(t, s, 10*time.Second)
		s.Kill(7, false)
		if took := converge(t, s, 5*time.Second); took > 3*time.Second {
			t.Errorf("seed %d: all know after %v", seed, took)
		}
	}
}

// A node that starts again with its clock an hour slow is heard nonetheless,
// though the others remember a record that is an hour younger.
func TestRestartWithWrongClock(t *testing.T) {
	for _, drift := range []time.Duration{-time.Hour, time.Hour} {
		for _, pause := range []time.Duration{0, 3 * time.Second, 30 * time.Second} {
			s := full(t, 20, sim.Options{Seed: 3, Degree: 4})
			s.Run(15 * time.Second)
			s.Kill(3, pause > 0)
			s.Restart(3, pause, drift)
			s.Run(pause + time.Millisecond)
			took := converge(t, s, 10*time.Second)
			for i, n := range s.Nodes {
				d, ok := n.Machine.Member(sim.ID(3))
				if !ok || d.Boot>>32 != 2 {
					t.Errorf("drift %v, pause %v: node%d knows %+v", drift, pause, i, d)
				}
			}
			t.Logf("drift %v, pause %v: %v", drift, pause, took)
		}
	}
}

// A node that is started again leaves once and joins once, as who it is now.
func TestRestartJoinsOnce(t *testing.T) {
	const who = 3
	var events map[int][]string
	s := full(t, 20, sim.Options{Seed: 7, Degree: 4, Watch: func(node int, a membership.Action) {
		switch a := a.(type) {
		case membership.Joined:
			if a.Member.ID == sim.ID(who) && events != nil {
				events[node] = append(events[node], fmt.Sprint("joined ", a.Member.Boot>>32))
			}
		case membership.Left:
			if a.Member.ID == sim.ID(who) && events != nil {
				events[node] = append(events[node], fmt.Sprint("left ", a.Member.Boot>>32))
			}
		}
	}})
	s.Run(15 * time.Second)
	for boot := range 10 {
		events = map[int][]string{}
		s.Kill(who, true)
		s.Restart(who, time.Duration(boot)*100*time.Millisecond, 0)
		s.Run(time.Duration(boot)*100*time.Millisecond + time.Millisecond)
		converge(t, s, 10*time.Second)
		want := []string{fmt.Sprint("left ", boot+1), fmt.Sprint("joined ", boot+2)}
		for i := range s.Nodes {
			if i != who && !slices.Equal(events[i], want) {
				t.Errorf("start %d: to node%d it %v, want %v", boot+2, i, events[i], want)
			}
		}
	}
}

func TestSplitAndHeal(t *testing.T) {
	for _, degree := range []int{membership.DegreeAuto, 3} {
		s := full(t, 60, sim.Options{Seed: 4, Degree: degree})
		s.Split(func(i int) int { return i % 3 / 2 })
		// Who had links to the other part only, may dial there first, in vain for 5 s.
		split := converge(t, s, 8*time.Second)
		s.Run(30 * time.Second) // longer than records of the lost are kept
		s.Split(func(int) int { return 0 })
		t.Logf("degree %d: split known after %v, healed after %v", degree, split, converge(t, s, 15*time.Second))
	}
}

// Nodes of one name are all members, and the name is ambiguous.
func TestTwoOfOneName(t *testing.T) {
	s := full(t, 5, sim.Options{Seed: 5, Degree: 2, Configure: func(i int, c *membership.Config) {
		if i > 2 {
			c.Name = "twin"
		}
	}})
	if twins := s.Nodes[0].Machine.Lookup("twin"); len(twins) != 2 || twins[0].ID == twins[1].ID {
		t.Errorf("twins: %+v", twins)
	}
	s.Kill(4, true)
	converge(t, s, 3*time.Second)
	if twins := s.Nodes[0].Machine.Lookup("twin"); len(twins) != 1 || twins[0].ID != sim.ID(3) {
		t.Errorf("after one died: %+v", twins)
	}
	if m := s.Nodes[0].Machine; m.Known("twin") || m.Known("nobody") {
		t.Error("a name that is there, or never was, counts as gone")
	}
	s.Kill(3, true)
	converge(t, s, 3*time.Second)
	if !s.Nodes[0].Machine.Known("twin") {
		t.Error("a name that was there a moment ago is not known")
	}
}

func TestLeave(t *testing.T) {
	var dials int
	s := full(t, 20, sim.Options{Seed: 6, Degree: 4, Watch: func(_ int, a membership.Action) {
		if d, ok := a.(membership.Dial); ok && d.ID == sim.ID(2) {
			dials++
		}
	}})
	dials = 0
	s.Handle(2, membership.Leave{})
	s.Kill(2, true)
	if took := converge(t, s, time.Second); took > 300*time.Millisecond {
		t.Error("it took", took)
	}
	s.Run(20 * time.Second)
	if dials > 0 {
		t.Error("a node that left on purpose was dialled", dials, "times")
	}
	s.Restart(2, 0, -time.Hour)
	s.Run(time.Millisecond)
	converge(t, s, 5*time.Second)
}

func TestPinAndHangup(t *testing.T) {
	s := sim.New(sim.Options{Seed: 7, Degree: membership.DegreeNone})
	for range 3 {
		s.Add(0)
	}
	s.Run(time.Millisecond)
	s.Handle(0, membership.Pin{ID: sim.ID(1), Addrs: []string{"x"}})
	s.Handle(1, membership.Pin{ID: sim.ID(2), Addrs: []string{"x"}})
	converge(t, s, time.Second)
	if s.Linked(0, 2) {
		t.Error("nodes that seek no links made one")
	}
	// A pinned link that breaks is made again.
	s.Run(15 * time.Second)
	s.Cut(0, 1)
	converge(t, s, 5*time.Second)
	s.Run(5 * time.Second)
	if !s.Linked(0, 1) {
		t.Error("the pinned link was not made again")
	}
	// One that was hung up is not, by either end.
	s.Handle(1, membership.Hangup{ID: sim.ID(0)})
	s.Run(40 * time.Second)
	if s.Linked(0, 1) {
		t.Error("a link that was hung up is back")
	}
	// Who asks for it by name gets it.
	s.Handle(0, membership.Pin{ID: sim.ID(1), Addrs: []string{"x"}})
	s.Run(5 * time.Second)
	if !s.Linked(0, 1) {
		t.Error("a link asked for by name after a hangup was refused")
	}
}

// Two clusters joined by one link know all members, and stay two clusters.
func TestFederation(t *testing.T) {
	s := sim.New(sim.Options{Seed: 8, Degree: 3, CanDial: func(a, b int) bool { return a < 10 == (b < 10) },
		Configure: func(i int, c *membership.Config) {
			if i >= 10 {
				c.Context = "other"
			}
		}})
	for range 20 {
		s.Add(0)
	}
	s.Split(func(i int) int { return i / 10 })
	s.Run(3 * time.Second)
	s.Split(func(int) int { return 0 })
	s.Handle(0, membership.Pin{ID: sim.ID(15), Addrs: []string{"x"}})
	s.Connect(0, 15)
	converge(t, s, 2*time.Second)
	s.Run(20 * time.Second)
	for a := range 10 {
		for b := 10; b < 20; b++ {
			if s.Linked(a, b) != (a == 0 && b == 15) {
				t.Errorf("link %d-%d: %v", a, b, s.Linked(a, b))
			}
		}
	}
}

// A process that got no time to run does not take that for the silence of
// others; and the others see it come back.
func TestStarved(t *testing.T) {
	s := full(t, 20, sim.Options{Seed: 9, Degree: 4})
	for i := range 20 {
		s.Freeze(i, 1200*time.Millisecond)
	}
	s.Run(10 * time.Second)
	for i, n := range s.Nodes {
		if st := n.Machine.Stats(); st.Suspected > 0 || st.LateTicks == 0 {
			t.Errorf("node%d: %+v", i, st)
		}
	}
	s.Run(time.Minute) // until heartbeats are fast again
	s.Freeze(0, 6*time.Second)
	s.Run(4 * time.Second)
	if d := s.Nodes[1].Machine.Size(); d != 19 {
		t.Errorf("%d members while one is frozen", d)
	}
	converge(t, s, 10*time.Second)
}

// A hundred nodes that start at once on two slow processors have to wait long
// for their turn. They take nobody for dead, and become calm.
func TestNoStorm(t *testing.T) {
	s := sim.New(sim.Options{Seed: 12, Degree: membership.DegreeAuto, Cost: 300 * time.Microsecond, Cores: 2})
	for range 100 {
		s.Add(0)
	}
	took := converge(t, s, 15*time.Second)
	s.Run(time.Minute)
	var late, published uint64
	for i, n := range s.Nodes {
		st := n.Machine.Stats()
		late += st.LateTicks
		published += st.Published
		if st.Suspected > 0 {
			t.Errorf("node%d took %d neighbours for dead", i, st.Suspected)
		}
	}
	t.Logf("converged after %v with %d late ticks", took, late)
	s.Run(10 * time.Second)
	for _, n := range s.Nodes {
		published -= n.Machine.Stats().Published
	}
	if -int64(published) > 20 {
		t.Errorf("%d new records in ten quiet seconds", -int64(published))
	}
}

// At rest all nodes beat at the same moment, so that each is woken once for all
// its neighbours.
func TestBeatsComeTogether(t *testing.T) {
	s := sim.New(sim.Options{Seed: 13, Degree: membership.DegreeAuto})
	for i := range 10 {
		s.Add(time.Duration(i) * 270 * time.Millisecond)
	}
	s.Run(20 * time.Second)
	messages := func() (sum int64) {
		for _, n := range s.Nodes {
			sum += n.Messages
		}
		return sum
	}
	const seconds, step = 6, 10 * time.Millisecond
	before, busy := messages(), 0
	for range seconds * time.Second / step {
		was := messages()
		s.Run(step)
		if messages() > was {
			busy++
		}
	}
	t.Logf("%d messages in %d moments", messages()-before, busy)
	if rounds := int(seconds * time.Second / (500 * time.Millisecond)); busy > 2*rounds || messages()-before > int64(rounds*10*9) {
		t.Errorf("%d messages in %d moments, for %d heartbeats", messages()-before, busy, rounds)
	}
}

// A node that everybody dialled sheds links without the mesh coming apart.
func TestTrim(t *testing.T) {
	star := sim.New(sim.Options{Seed: 10, Degree: 3})
	for range 40 {
		star.Add(0)
	}
	star.Run(time.Millisecond)
	for i := 1; i < 40; i++ {
		star.Connect(i, 0)
	}
	converge(t, star, 3*time.Second)
	for range 60 {
		star.Run(time.Second)
		if star.Wrong() > 0 {
			t.Fatalf("after %v %d nodes miss members", star.Now(), star.Wrong())
		}
	}
	if d := star.Nodes[0].Degree(); d > 12 {
		t.Errorf("the hub still has %d links", d)
	}
	before := make([]uint64, 40)
	for i, n := range star.Nodes {
		before[i] = n.Machine.Stats().Published
	}
	star.Run(time.Minute)
	for i, n := range star.Nodes {
		if more := n.Machine.Stats().Published - before[i]; more > 2 {
			t.Errorf("links of node%d still come and go: %d new records in a minute", i, more)
		}
	}
}

func TestMessagesOfStrangersAreIgnored(t *testing.T) {
	now := time.Unix(0, 0)
	m, err := membership.New(membership.Config{Self: "a", Name: "a", Rand: rand.New(rand.NewPCG(1, 1))}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Handle(now, membership.Message{From: "b", Data: []byte{1}}) {
		t.Errorf("%T", a)
	}
}
