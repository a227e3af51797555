package sim
import ("testing";"time";"runtime/debug";"minimega/pkg/meshage/membership")
func TestProf(t *testing.T) {
	debug.SetGCPercent(300)
	s := New(Options{Seed: 1, Degree: membership.DegreeAuto})
	for range 1000 { s.Add(time.Duration(s.Rand().Int64N(int64(time.Second)))) }
	t.Log(s.Converge(20*time.Second, time.Second))
	var a uint64
	for _, n := range s.Nodes { a += n.Machine.Stats().Searches }
	t.Log(a/1000)
	s.Run(8*time.Second)
}
