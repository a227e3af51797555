package vlan

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
)

// agreement is what a registry needs besides the claims to agree with others.
// Registry.mu guards it, except for the wait group.
type agreement struct {
	origin  string // of the claims made here
	clock   uint64 // the latest seen
	floor   uint32 // no alias may begin a life that is not above it
	shared  bool   // others may know of our claims, so that deletions must be remembered
	derived bool   // some number follows from assign, and not from a claim of its own

	peers   Peers
	outbox  []Claim               // to publish
	pending map[key]chan struct{} // allocations that peers are being asked about

	hook  func(context.Context, []Renumber)
	queue []Renumber    // to tell the hook
	moved chan struct{} // closed when the hook has done all; nil if nothing is to do
	life  context.Context
	end   context.CancelFunc
	tells *sync.WaitGroup
}

func newAgreement() agreement {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	a := agreement{origin: hex.EncodeToString(id), pending: map[key]chan struct{}{}, tells: &sync.WaitGroup{}}
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// claimLocked gives k, which has no number, the number n, which is free.
func (r *Registry) claimLocked(k key, n int) {
	r.settleLocked(func(Claim) bool { return true })
	rg := r.rangeLocked(k.ns)
	c := r.newClaimLocked(k, n)
	c.Min, c.Max, c.Own = rg.Min, rg.Max, r.ranges[k.ns] != nil && k.ns != Default
	r.putLocked(c)
	r.numbers[k], r.names[n] = n, k
}

// reserveLocked keeps n, which is not reserved yet, from allocation.
func (r *Registry) reserveLocked(n int) {
	r.settleLocked(func(Claim) bool { return true })
	r.putLocked(r.newClaimLocked(reservation(n), n))
	r.black[n] = true
}

func (r *Registry) newClaimLocked(k key, n int) Claim {
	r.clock = min(r.clock+1, maxClock)
	c := Claim{NS: k.ns, Alias: k.alias, VLAN: n, Clock: r.clock, Origin: r.origin, Life: r.floor + 1}
	if old, ok := r.claims[k]; ok {
		c.Life = max(c.Life, old.Life+1)
	}
	return c
}

func (r *Registry) putLocked(c Claim) {
	r.claims[c.key()] = c
	if r.peers != nil {
		r.outbox = append(r.outbox, c)
	}
}

// forgetLocked ends the claims whose key it is true for.
func (r *Registry) forgetLocked(which func(key) bool) {
	r.settleLocked(func(Claim) bool { return true }) // so that the end of one does not move another
	for k, c := range r.claims {
		if c.Deleted || !which(k) {
			continue
		}
		if n, ok := r.numbers[k]; ok {
			delete(r.numbers, k)
			delete(r.names, n)
		}
		if !r.shared {
			delete(r.claims, k)
			continue
		}
		r.clock = min(r.clock+1, maxClock)
		c.Deleted, c.Clock, c.Origin = true, r.clock, r.origin
		r.putLocked(c)
	}
	r.floor = max(r.floor, r.claims.prune())
}

// settleLocked writes into claims what follows from them for aliases that lost
// their number, so that they keep the new one whatever becomes of the others.
func (r *Registry) settleLocked(which func(Claim) bool) {
	if !r.derived {
		return
	}
	r.derived = false
	for k, n := range r.numbers {
		c := r.claims[k]
		switch {
		case c.VLAN == n:
		case which(c):
			c.VLAN = n
			c.Rev++
			r.putLocked(c)
		default:
			r.derived = true
		}
	}
}

// reassignLocked works out anew what follows from the claims, and returns which
// aliases have got another number. It must follow every join.
func (r *Registry) reassignLocked() []Renumber {
	old := r.numbers
	r.floor = max(r.floor, r.claims.prune())
	r.numbers, r.black = r.claims.assign()
	r.names = make(map[int]key, len(r.numbers))
	r.derived = false
	for k, n := range r.numbers {
		r.names[n] = k
		r.derived = r.derived || r.claims[k].VLAN != n
	}
	var moves []Renumber
	for k, was := range old {
		now, there := r.numbers[k]
		if there && now != was && r.pending[k] == nil {
			moves = append(moves, Renumber{NS: k.ns, Alias: k.alias, Old: was, New: now})
		}
	}
	slices.SortFunc(moves, func(a, b Renumber) int {
		return cmp.Or(cmp.Compare(a.NS, b.NS), cmp.Compare(a.Alias, b.Alias))
	})
	return moves
}

// Claims returns all that is known, deletions too, in order of names.
func (r *Registry) Claims() []Claim {
	r.mu.Lock()
	r.shared = true
	list := slices.Collect(maps.Values(r.claims))
	r.mu.Unlock()
	sortClaims(list)
	return list
}

func sortClaims(list []Claim) {
	slices.SortFunc(list, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.NS, b.NS), cmp.Compare(a.Alias, b.Alias))
	})
}
