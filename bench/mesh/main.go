// Command mesh measures nodes of pkg/meshage inside one process: how soon they
// know each other, what they cost when nothing happens, how quick calls,
// broadcasts and the news of a death are, and how fast a stream is beside bare
// TCP with yamux.
package main

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"minimega/bench/figure"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

func main() { figure.Main(run) }

func run() error {
	for _, c := range []struct {
		count  int
		target string
		more   func(*mesh) error
	}{{10, "<= 1 s", ten}, {50, "<= 2 s", calm}, {100, "no storm", calm}} {
		m, err := newMesh(c.count)
		if err != nil {
			return err
		}
		took, err := m.converge(time.Minute)
		if err == nil {
			figure.Alone(fmt.Sprintf("%d nodes know each other after the last start", c.count), round(took), c.target)
			err = c.more(m)
		}
		m.close()
		if err != nil {
			return fmt.Errorf("%d nodes: %w", c.count, err)
		}
	}
	return streams()
}

func round(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }

// mesh is some nodes on one network in memory.
type mesh struct {
	network *meshage.Memory
	nodes   []*meshage.Node
	last    time.Time // of the last start
	heard   []atomic.Int64
}

func address(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }

func newMesh(count int) (*mesh, error) {
	key, err := meshage.GenerateKey()
	if err != nil {
		return nil, err
	}
	m := &mesh{network: meshage.NewMemory(), heard: make([]atomic.Int64, count)}
	for i := range count {
		n, err := meshage.New(context.Background(), meshage.Options{Name: fmt.Sprintf("n%d", i), Context: "bench", Port: 9000,
			Degree: membership.DegreeAuto, Key: key, Transport: m.network.Host(address(i))})
		if err != nil {
			m.close()
			return nil, err
		}
		n.Respond("echo", func(_ context.Context, _ string, b []byte) ([]byte, error) { return b, nil })
		n.Subscribe("bench", func(string, []byte) { m.heard[i].Add(1) })
		m.nodes = append(m.nodes, n)
	}
	m.last = time.Now()
	return m, nil
}

func (m *mesh) close() {
	done := make(chan struct{})
	for _, n := range m.nodes {
		go func() { _ = n.Close(); done <- struct{}{} }()
	}
	for range m.nodes {
		<-done
	}
}

// until polls ok, coarsely enough not to be what is measured.
func until(limit time.Duration, ok func() bool) (time.Duration, error) {
	began := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > limit {
			return 0, fmt.Errorf("not within %v", limit)
		}
		<-tick.C
	}
	return time.Since(began), nil
}

func (m *mesh) converge(limit time.Duration) (time.Duration, error) {
	next := 0
	_, err := until(limit, func() bool {
		for next < len(m.nodes) && m.nodes[next].Status().Size == len(m.nodes) {
			next++
		}
		return next == len(m.nodes)
	})
	return time.Since(m.last), err
}

// cpu is what the process has used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// calm lets the mesh settle and measures what it costs then.
func calm(m *mesh) error {
	time.Sleep(3 * time.Second) // links are trimmed, the garbage is collected
	const span = 5 * time.Second
	links, before := m.links(), cpu()
	time.Sleep(span)
	per := 100 * float64(cpu()-before) / float64(span) / float64(len(m.nodes))
	figure.Alone(fmt.Sprintf("%d nodes at rest: of a core, each", len(m.nodes)), fmt.Sprintf("%.2f %%", per), "<= 0.5 %")
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	figure.Alone("  heap for each, goroutines of each, links of each", fmt.Sprintf("%.1f MB, %d, %.1f", float64(memory.HeapInuse)/1e6/float64(len(m.nodes)),
		runtime.NumGoroutine()/len(m.nodes), float64(links)/float64(len(m.nodes))), "-")
	for _, n := range m.nodes {
		if got := n.Status().Size; got != len(m.nodes) {
			return fmt.Errorf("%s lost members: %d", n.Name(), got)
		}
	}
	if m.links() != links {
		figure.Alone("  links changed at rest", fmt.Sprint(m.links()-links), "0")
	}
	return m.broadcasts()
}

func (m *mesh) links() int {
	sum := 0
	for _, n := range m.nodes {
		sum += n.Status().Peers
	}
	return sum
}

func ten(m *mesh) error {
	ctx := context.Background()
	var one, all []time.Duration
	var others []string
	for _, n := range m.nodes[1:] {
		others = append(others, n.Name())
	}
	for i := range 500 {
		t, err := figure.Time(func() error { _, err := m.nodes[0].Call(ctx, others[i%9], "echo", []byte("x")); return err })
		if err != nil {
			return err
		}
		one = append(one, t)
	}
	for range 200 {
		t, err := figure.Time(func() (err error) {
			for r := range m.nodes[0].CallAll(ctx, others, "echo", []byte("x")) {
				if r.Err != nil {
					err = r.Err
				}
			}
			return err
		})
		if err != nil {
			return err
		}
		all = append(all, t)
	}
	quantiles("a call", one, "-")
	quantiles("a call to 9 others at once", all, "<= 10 ms")
	if err := calm(m); err != nil {
		return err
	}
	return m.death()
}

func quantiles(what string, d []time.Duration, target string) {
	figure.Alone(what+", p50 / p99", round(figure.Median(d))+" / "+round(figure.Quantile(d, 0.99)), target)
}

// broadcasts measures from the send to the last of all.
func (m *mesh) broadcasts() error {
	var took []time.Duration
	missed := 0
	for round := range 50 {
		for i := range m.heard {
			m.heard[i].Store(0)
		}
		from := round % len(m.nodes)
		began := time.Now()
		if err := m.nodes[from].Broadcast(context.Background(), "bench", make([]byte, 64)); err != nil {
			return err
		}
		_, err := until(2*time.Second, func() bool {
			for i := range m.heard {
				if i != from && m.heard[i].Load() == 0 {
					return false
				}
			}
			return true
		})
		if err != nil {
			missed++
			continue
		}
		took = append(took, time.Since(began))
	}
	if len(took) == 0 {
		return fmt.Errorf("no broadcast reached all")
	}
	quantiles(fmt.Sprintf("a broadcast to %d others", len(m.nodes)-1), took, "-")
	figure.Alone("  broadcasts of 50 that missed somebody", fmt.Sprint(missed), "0")
	return nil
}

// death pulls the cable of one node.
func (m *mesh) death() error {
	last := len(m.nodes) - 1
	began := time.Now()
	for i := range last {
		m.network.Cut(address(i), address(last), true)
	}
	_, err := until(10*time.Second, func() bool {
		for _, n := range m.nodes[:last] {
			if n.Status().Size != last {
				return false
			}
		}
		return true
	})
	figure.Alone("a silent death known to 9 others after", round(time.Since(began)), "<= 3 s")
	return err
}
