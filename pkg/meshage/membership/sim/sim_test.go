package sim

import (
	"testing"
	"time"

	"minimega/pkg/meshage/membership"
)

// One hundred nodes that start at once find each other by beacons.
func TestConverge(t *testing.T) {
	s := New(Options{Seed: 1, Degree: membership.DegreeAuto})
	for range 100 {
		s.Add(0)
	}
	took, ok := s.Converge(20*time.Second, time.Second)
	if !ok {
		t.Fatalf("%d nodes wrong after %v", s.Wrong(), s.Now())
	}
	t.Log("converged in", took)
	for _, d := range []int{1, 10} {
		var most, sum int
		var bytes int64
		for _, n := range s.Nodes {
			most, sum, bytes = max(most, n.Degree()), sum+n.Degree(), bytes+n.Sent
			n.Sent = 0
		}
		t.Log("after", s.Now(), "degree mean", sum/100, "most", most, "sent by each", bytes/100, "faults", s.Nodes[0].Machine.Stats())
		s.Run(time.Duration(d) * time.Second)
	}
	if s.Twice > 0 {
		t.Error(s.Twice, "events twice")
	}
}
