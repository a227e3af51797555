package vlan

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cluster is a number of registries that a test lets speak, or not.
type cluster struct {
	hosts []*Registry

	mu    sync.Mutex
	apart map[[2]int]bool // those that are cut off from each other
	lossy map[int]bool    // whose broadcasts are lost
	moved []Renumber
}

// member is one host's view of the cluster.
type member struct {
	c *cluster
	i int
}

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{apart: map[[2]int]bool{}, lossy: map[int]bool{}}
	for i := range n {
		r := newTest(t)
		r.OnRenumber(func(_ context.Context, moves []Renumber) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.moved = append(c.moved, moves...)
		})
		r.SetPeers(member{c, i})
		c.hosts = append(c.hosts, r)
	}
	return c
}

func (c *cluster) cut(i, j int, apart bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apart[[2]int{i, j}], c.apart[[2]int{j, i}] = apart, apart
}

func (m member) others() (list []*Registry) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	for j, r := range m.c.hosts {
		if j != m.i && !m.c.apart[[2]int{m.i, j}] {
			list = append(list, r)
		}
	}
	return list
}

// wire passes a value on as the mesh would.
func wire[T any](v T) (o T) {
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		panic(err)
	}
	return o
}

func (m member) Propose(_ context.Context, c Claim) (all []Claim, asked int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	others := m.others()
	for _, r := range others {
		wg.Go(func() {
			a, err := r.Answer(wire(c))
			if err != nil {
				panic(err)
			}
			mu.Lock()
			all = append(all, wire(a)...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return all, len(others)
}

func (m member) Publish(claims []Claim) {
	m.c.mu.Lock()
	lost := m.c.lossy[m.i]
	m.c.mu.Unlock()
	if lost {
		return
	}
	for _, r := range m.others() {
		if _, err := r.Merge(wire(claims)); err != nil {
			panic(err)
		}
	}
}

// heal joins all, and lets each two of them exchange what they know until
// nobody learns anything.
func (c *cluster) heal() (rounds int) {
	c.mu.Lock()
	clear(c.apart)
	clear(c.lossy)
	c.mu.Unlock()
	for rounds = 1; ; rounds++ {
		calm := true
		for _, a := range c.hosts {
			for _, b := range c.hosts {
				da, db := wire(a.Digest()), wire(b.Digest())
				if slices.Equal(da, db) {
					continue
				}
				calm = false
				toB, toA := a.ClaimsFor(db), b.ClaimsFor(da)
				_, err1 := b.Merge(wire(toB))
				_, err2 := a.Merge(wire(toA))
				if err1 != nil || err2 != nil {
					panic(fmt.Sprint(err1, err2))
				}
			}
		}
		if calm {
			return rounds
		}
	}
}

func (c *cluster) agree(t failer) {
	for _, r := range c.hosts[1:] {
		if diff := cmp.Diff(c.hosts[0].Claims(), r.Claims()); diff != "" {
			t.Fatalf("hosts know different claims:\n%s", diff)
		}
		if !maps.Equal(c.hosts[0].numbers, r.numbers) || !maps.Equal(c.hosts[0].black, r.black) {
			t.Fatalf("hosts disagree: %v %v, %v %v", c.hosts[0].numbers, c.hosts[0].black, r.numbers, r.black)
		}
	}
	unique(t, c.hosts[0].numbers)
}

// slow is a peer that never answers.
type slow struct{}

func (slow) Propose(ctx context.Context, _ Claim) ([]Claim, int) { <-ctx.Done(); return nil, 1 }
func (slow) Publish([]Claim)                                     {}
