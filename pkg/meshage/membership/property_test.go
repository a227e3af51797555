package membership_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"minimega/pkg/meshage/membership"
	"minimega/pkg/meshage/membership/sim"
)

// components numbers the parts of a network that hang together by links.
func components(s *sim.Net) []int {
	part := make([]int, len(s.Nodes))
	for i := range part {
		part[i] = i
	}
	for changed := true; changed; {
		changed = false
		for a := range s.Nodes {
			for b := range s.Nodes {
				if s.Linked(a, b) && part[b] < part[a] {
					part[a], changed = part[b], true
				}
			}
		}
	}
	return part
}

// Whatever links come and go, nodes die and start again: when it is quiet all
// nodes know exactly those whom links lead to, by ways that exist.
func TestQuietMeansRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 24).Draw(t, "nodes")
		s := sim.New(sim.Options{Seed: rapid.Uint64().Draw(t, "seed"), Degree: membership.DegreeNone,
			Loss: rapid.SampledFrom([]float64{0, 0.1}).Draw(t, "loss"), CanDial: func(int, int) bool { return false }})
		for range n {
			s.Add(0)
		}
		s.Run(time.Millisecond)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			step(t, s, n)
		}
		s.Split(func(int) int { return 0 })
		s.Run(15 * time.Second) // the dead are noticed
		settle(t, s)
		checkRoutes(t, s)
	})
}

// settle waits until all know who is connected to them. Where packets are lost a
// link may break in the middle of it, and changes what is right.
func settle(t *rapid.T, s *sim.Net) {
	for {
		part := components(s)
		s.Judge(func(a, b *sim.Node) bool { return b.Alive && part[number(a)] == part[number(b)] })
		took, ok := s.Converge(45*time.Second, time.Second)
		if same := slices.Equal(part, components(s)); ok && same {
			return
		} else if same || s.Twice > 0 {
			t.Fatalf("%d nodes are wrong %v after it became quiet, %d events twice", s.Wrong(), took, s.Twice)
		}
	}
}

func step(t *rapid.T, s *sim.Net, n int) {
	a, b := rapid.IntRange(0, n-1).Draw(t, "a"), rapid.IntRange(0, n-1).Draw(t, "b")
	switch rapid.IntRange(0, 11).Draw(t, "what") {
	case 0, 1, 2, 3:
		s.Connect(a, b)
	case 4, 5:
		if s.Nodes[a].Alive {
			s.Cut(a, b)
		}
	case 6:
		s.Kill(a, b%2 == 0)
	case 7:
		if !s.Nodes[a].Alive {
			s.Restart(a, 0, time.Duration(b-n/2)*time.Hour)
		}
	case 8:
		s.Split(func(i int) int { return i * b / n % 2 })
	case 9:
		s.Freeze(a, time.Duration(b)*100*time.Millisecond)
	default:
		s.Run(time.Duration(rapid.IntRange(1, 4000).Draw(t, "ms")) * time.Millisecond)
	}
}

func checkRoutes(t *rapid.T, s *sim.Net) {
	for i, n := range s.Nodes {
		if !n.Alive {
			continue
		}
		for _, m := range n.Machine.Members() {
			at := i
			for _, hop := range n.Machine.Path(m.ID) {
				next := index(s, hop)
				if !s.Linked(at, next) {
					t.Fatalf("node%d routes over a link %d-%d that is not there", i, at, next)
				}
				at = next
			}
			if s.Nodes[at].ID != m.ID {
				t.Fatalf("node%d has no way to its member %s", i, m.Name)
			}
		}
	}
}

func index(s *sim.Net, id membership.ID) int {
	for i, n := range s.Nodes {
		if n.ID == id {
			return i
		}
	}
	return -1
}
