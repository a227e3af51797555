package vlan

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"minimega/internal/errs"
)

// agreeTime bounds how long an allocation waits for the other hosts.
const agreeTime = time.Second

// agreeRounds bounds how often an allocation that others object to tries again.
const agreeRounds = 4

// Peers are the registries of the other hosts. Its methods are called by any
// goroutine, and never while the registry holds a lock.
//
// Who sees another host come, also again after a split, exchanges what the two
// know: each sends its Digest, answers with ClaimsFor the other's, and merges.
type Peers interface {
	// Propose asks all other hosts at once for their Answer to a claim, and
	// returns all answers together, and how many hosts there were to ask. Those
	// that do not answer in time, or cannot be reached, are passed over. ctx
	// lasts a second at most.
	Propose(ctx context.Context, c Claim) (against []Claim, asked int)
	// Publish lets all other hosts Merge the claims, best effort. It does not block.
	Publish(claims []Claim)
}

// Renumber says that an alias has another number from now on. What is connected
// to it should move.
type Renumber struct {
	NS    string `json:"ns"`
	Alias string `json:"alias"`
	Old   int    `json:"old"`
	New   int    `json:"new"`
}

// Qualified returns "namespace//alias".
func (m Renumber) Qualified() string { return key{m.NS, m.Alias}.String() }

// SetPeers says with whom to agree from now on; nil parts from them, so that
// nothing that is deleted afterwards is deleted elsewhere.
func (r *Registry) SetPeers(p Peers) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers = p
	r.outbox = nil
}

// OnRenumber says who moves what is connected to aliases that get another
// number. f is called by one goroutine at a time, with the renumberings in their
// order; Resolve of an alias waits meanwhile, for a second at most. It must come
// before the first Merge. ctx ends with Close, which waits.
func (r *Registry) OnRenumber(f func(ctx context.Context, moves []Renumber)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = f
}

// Merge takes in claims of other hosts and returns which aliases got another
// number by that; the hook is told, too. What is malformed or too much is left
// out, and is the error.
func (r *Registry) Merge(claims []Claim) ([]Renumber, error) {
	good, err := checked(claims)
	r.mu.Lock()
	r.shared = true
	news := false
	for _, c := range good {
		if _, known := r.claims[c.key()]; !known && len(r.claims) >= MaxClaims {
			err = errors.Join(err, errs.New(errs.Resource, "more than %d claims of VLANs", MaxClaims))
			break
		}
		r.clock = max(r.clock, c.Clock)
		news = r.claims.join(c) || news
	}
	var moves []Renumber
	if news {
		moves = r.reassignLocked()
		r.settleLocked(func(c Claim) bool { return c.Origin == r.origin })
		r.changed()
		r.tellLocked(moves)
	}
	r.mu.Unlock()
	r.publish()
	return moves, err
}

// checked returns the well-formed claims.
func checked(claims []Claim) (good []Claim, err error) {
	if len(claims) > MaxClaims {
		return nil, errs.New(errs.Resource, "more than %d claims of VLANs in one message", MaxClaims)
	}
	bad := 0
	for _, c := range claims {
		if e := c.check(); e != nil {
			err = e
			bad++
			continue
		}
		good = append(good, c)
	}
	if bad > 1 {
		err = fmt.Errorf("%w, and %d more", err, bad-1)
	}
	return good, err
}

// Answer is what to say to a host that proposes a claim: nothing, or the claims
// that stand against it. The claim is taken in.
func (r *Registry) Answer(c Claim) ([]Claim, error) {
	if _, err := r.Merge([]Claim{c}); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var against []Claim
	if now := r.claims[c.key()]; now != c {
		against = append(against, now)
	}
	if k, ok := r.names[c.VLAN]; ok && k != c.key() {
		against = append(against, r.claims[k])
	}
	if res, ok := r.claims[reservation(c.VLAN)]; ok && !res.Deleted && !c.reserves() {
		against = append(against, res)
	}
	return against, nil
}

// settled returns the number of an alias, and what to wait for before using it.
func (r *Registry) settled(k key) (n int, ok bool, wait <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok = r.numbers[k]
	if p := r.pending[k]; p != nil {
		return n, ok, p
	}
	return n, ok, r.moved
}

// await returns the number of an alias once it is agreed on and what is connected
// to it has moved, and allocates it if there is none.
func (r *Registry) await(ctx context.Context, k key) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, agreeTime)
	defer cancel()
	for {
		n, ok, wait := r.settled(k)
		switch {
		case wait == nil && ok:
			return n, nil
		case wait == nil:
			return r.allocate(ctx, k)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			if ok {
				return n, nil // a number is better than none
			}
			return 0, ctx.Err()
		}
	}
}

// allocate finds a number for an alias that has none, and agrees on it.
func (r *Registry) allocate(ctx context.Context, k key) (int, error) {
	err := r.agree(ctx, k, true, func() error {
		if _, ok := r.numbers[k]; ok {
			return nil // by somebody else meanwhile
		}
		return r.allocateLocked(k)
	})
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.numbers[k]; ok {
		return n, nil
	}
	return 0, errs.New(errs.State, "the VLAN %s was deleted while it was allocated", k.alias)
}

// add gives an alias a number that somebody chose, or fails.
func (r *Registry) add(ctx context.Context, k key, vlan int) error {
	err := r.agree(ctx, k, false, func() error { return r.addLocked(k, vlan) })
	if err != nil {
		return err
	}
	r.mu.Lock()
	n, ok := r.numbers[k]
	ours := r.claims[k].Origin == r.origin
	if ok && ours && n != vlan {
		r.forgetLocked(func(o key) bool { return o == k })
	}
	r.mu.Unlock()
	if n == vlan && ok {
		return nil
	}
	r.keep()
	r.publish()
	if ours {
		return errVLAN
	}
	return errAlias
}

// agree makes a claim of k by claim, which runs under the lock, and lets the
// peers have their say. Others who want k wait meanwhile.
func (r *Registry) agree(ctx context.Context, k key, mayMove bool, claim func() error) error {
	r.mu.Lock()
	if p := r.pending[k]; p != nil {
		r.mu.Unlock()
		select {
		case <-p:
			return r.agree(ctx, k, mayMove, claim)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := claim(); err != nil {
		r.mu.Unlock()
		return err
	}
	peers := r.peers
	done := make(chan struct{})
	if peers != nil {
		r.pending[k] = done
	}
	r.mu.Unlock()
	if peers != nil {
		r.negotiate(ctx, peers, k, mayMove, claim)
		r.mu.Lock()
		delete(r.pending, k)
		r.mu.Unlock()
		close(done)
	}
	r.keep()
	r.publish()
	return nil
}

// negotiate proposes the claim of k until nobody objects. Where others remember
// later deletions of the alias than we do, it is claimed again.
func (r *Registry) negotiate(ctx context.Context, peers Peers, k key, mayMove bool, claim func() error) {
	for range agreeRounds {
		r.mu.Lock()
		c := r.claims[k]
		r.mu.Unlock()
		against, asked := peers.Propose(ctx, c)
		if asked > 0 {
			r.mu.Lock()
			r.shared = true
			r.mu.Unlock()
		}
		if len(against) == 0 || ctx.Err() != nil {
			return
		}
		if _, err := r.Merge(against); err != nil {
			r.log.Warn("another host objects to a VLAN with what makes no sense", "err", err)
		}
		r.mu.Lock()
		if r.claims[k].Deleted {
			_ = claim() // if it fails there is no number, which the caller sees
		}
		if mayMove {
			r.evadeLocked(k)
		}
		same := r.claims[k] == c
		r.mu.Unlock()
		if same {
			return
		}
	}
}

// evadeLocked moves a new claim of ours away from a number that is reserved.
func (r *Registry) evadeLocked(k key) {
	c := r.claims[k]
	n, ok := r.numbers[k]
	if !ok || !r.black[n] || c.Deleted || c.Origin != r.origin {
		return
	}
	rg := r.rangeLocked(k.ns)
	next := r.nextLocked(k.ns, rg)
	if next == rg.Max {
		return // none is free: as if it had been reserved after
	}
	delete(r.names, n)
	c.VLAN = next
	c.Rev++
	r.putLocked(c)
	r.numbers[k], r.names[next], rg.Next = next, k, next+1
}

// publish sends what was claimed.
func (r *Registry) publish() {
	r.mu.Lock()
	out, peers := r.outbox, r.peers
	r.outbox = nil
	r.mu.Unlock()
	if len(out) > 0 && peers != nil {
		peers.Publish(out)
	}
}

// tellLocked lets the hook know.
func (r *Registry) tellLocked(moves []Renumber) {
	if len(moves) == 0 || r.hook == nil || r.life.Err() != nil {
		return
	}
	r.queue = append(r.queue, moves...)
	if r.moved == nil {
		r.moved = make(chan struct{})
		r.tells.Add(1)
		go r.tell()
	}
}

// tell calls the hook until there is nothing to tell.
func (r *Registry) tell() {
	defer r.tells.Done()
	for {
		r.mu.Lock()
		moves, hook := r.queue, r.hook
		r.queue = nil
		if len(moves) == 0 {
			close(r.moved)
			r.moved = nil
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		hook(r.life, moves)
	}
}

func (r *Registry) closeAgreement() {
	r.mu.Lock()
	r.end()
	r.mu.Unlock()
	r.tells.Wait()
}

// Digest is a short form of all claims: two that are the same mean that the
// claims are, where two differ in one place the claims of one bucket differ.
type Digest []uint64

const buckets = 64

// Digest sums up what is known.
func (r *Registry) Digest() Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared = true
	d := make(Digest, buckets)
	for _, c := range r.claims {
		d[c.bucket()] ^= c.hash()
	}
	return d
}

// ClaimsFor returns the claims that a host with this digest may not know.
func (r *Registry) ClaimsFor(theirs Digest) []Claim {
	all := r.Claims()
	if len(theirs) != buckets {
		return all
	}
	ours := r.Digest()
	var list []Claim
	for _, c := range all {
		if b := c.bucket(); ours[b] != theirs[b] {
			list = append(list, c)
		}
	}
	return list
}

func (c Claim) bucket() int {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q %q", c.NS, c.Alias)
	return int(h.Sum64() % buckets)
}

func (c Claim) hash() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%+v", c)
	return h.Sum64()
}
