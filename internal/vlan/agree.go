package vlan

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
)

// Claim says that an alias has a number, or that it was deleted; with NS "" and
// the number as its alias it says that no alias may be given the number. Hosts
// agree on VLANs by exchanging claims: of two about one name all choose the same
// (supersedes), and what several names claim all assign in the same way (assign),
// so that neither order nor repetition matters. No clock of a wall is involved.
type Claim struct {
	NS      string `json:"ns,omitempty"`
	Alias   string `json:"alias"`
	VLAN    int    `json:"vlan"`
	Clock   uint64 `json:"clock"`  // Lamport's: later than all that Origin had seen
	Origin  string `json:"origin"` // the registry that made it
	Life    uint32 `json:"life"`   // which life of the alias, the first being 1; a deletion ends one
	Deleted bool   `json:"deleted,omitempty"`
	// Rev counts how often the same claim was given another number.
	Rev uint32 `json:"rev,omitempty"`
	// The range [Min, Max) that the number came from, and where another is
	// looked for; Own if it is the range of NS alone.
	Min int  `json:"min"`
	Max int  `json:"max"`
	Own bool `json:"own,omitempty"`
}

// What is kept and what is taken from others.
const (
	MaxTombstones = Max // deletions that are remembered, the latest
	MaxClaims     = 2*Max + MaxTombstones
	maxClock      = 1 << 62
)

func (c Claim) key() key       { return key{c.NS, c.Alias} }
func (c Claim) reserves() bool { return c.NS == "" }

// check refuses what this program would never have said.
func (c Claim) check() error {
	bad := c.VLAN < 0 || c.VLAN >= Max || c.Clock == 0 || c.Clock > maxClock || c.Life == 0 || c.Life > maxClock>>32 ||
		c.Rev > maxClock>>32 || c.Min < 0 || c.Max > Max || c.Min > c.Max || c.Origin == "" || len(c.Origin) > maxName || !clean(c.Origin)
	if !bad && c.reserves() {
		bad = c.Alias != strconv.Itoa(c.VLAN)
	} else if !bad {
		k, err := parseKey(c.NS, c.Alias)
		bad = err != nil || k != c.key() || strings.Contains(c.NS, separator)
	}
	if bad {
		return errs.New(errs.Invalid, "malformed claim of a VLAN: %.200q", c.NS+separator+c.Alias)
	}
	return nil
}

// supersedes orders the claims about one name: a later life before an earlier
// one, in one life its end before anything else, then the earliest claim, and of
// that the latest revision. It is a total order, and the first is what counts.
func (c Claim) supersedes(o Claim) bool {
	return cmp.Or(
		-cmp.Compare(c.Life, o.Life),
		-compareBool(c.Deleted, o.Deleted),
		earlier(c, o),
		-cmp.Compare(c.Rev, o.Rev),
		cmp.Compare(c.VLAN, o.VLAN),
		cmp.Compare(c.Min, o.Min),
		cmp.Compare(c.Max, o.Max),
		compareBool(c.Own, o.Own),
	) < 0
}

func earlier(c, o Claim) int {
	return cmp.Or(cmp.Compare(c.Clock, o.Clock), cmp.Compare(c.Origin, o.Origin))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// table is what a host knows: for each name the claim that counts.
type table map[key]Claim

// join takes in a claim and reports whether it told anything new. It is
// commutative, associative and idempotent.
func (t table) join(c Claim) bool {
	now, known := t[c.key()]
	if known && !c.supersedes(now) {
		return false
	}
	t[c.key()] = c
	return true
}

// assign gives every living alias its number, the same for the same table: the
// earliest claim of a number has it, the others get free ones, earliest first.
// Reserved numbers are given to nobody who did not claim them. An alias is left
// out when there are more of them than numbers.
func (t table) assign() (numbers map[key]int, reserved map[int]bool) {
	var living []Claim
	reserved = map[int]bool{}
	for _, c := range t {
		switch {
		case c.Deleted:
		case c.reserves():
			reserved[c.VLAN] = true
		default:
			living = append(living, c)
		}
	}
	slices.SortFunc(living, func(a, b Claim) int {
		return cmp.Or(earlier(a, b), cmp.Compare(a.NS, b.NS), cmp.Compare(a.Alias, b.Alias))
	})
	numbers = map[key]int{}
	taken, holder := make([]bool, Max), make([]bool, Max)
	for n := range reserved {
		taken[n] = true
	}
	var losers []Claim
	for _, c := range living {
		if holder[c.VLAN] {
			losers = append(losers, c)
			continue
		}
		holder[c.VLAN], taken[c.VLAN] = true, true
		numbers[c.key()] = c.VLAN
	}
	owners := ownersOf(living, len(losers))
	for _, c := range losers {
		if !slices.Contains(taken[1:], false) {
			break // bounds the work that a peer can make
		}
		if n, ok := elsewhere(c, owners, taken); ok {
			taken[n] = true
			numbers[c.key()] = n
		}
	}
	return numbers, reserved
}

// ownersOf says which numbers lie in a range that one namespace has for itself,
// and which that is, or separator for several. It is only for those who look for
// a number.
func ownersOf(living []Claim, losers int) []string {
	owners := make([]string, Max)
	if losers == 0 {
		return owners
	}
	type span struct {
		ns       string
		min, max int
	}
	done := map[span]bool{}
	for _, c := range living {
		s := span{c.NS, c.Min, c.Max}
		if !c.Own || done[s] {
			continue
		}
		done[s] = true
		for n := c.Min; n < c.Max; n++ {
			if owners[n] != "" && owners[n] != c.NS {
				owners[n] = separator
			} else {
				owners[n] = c.NS
			}
		}
	}
	return owners
}

// elsewhere finds a number for a claim that lost its own: the next in its range
// that is free, or outside when the range is full. Who shares the default range
// keeps out of those that others have for themselves.
func elsewhere(c Claim, owners []string, taken []bool) (int, bool) {
	free := func(n int) bool { return !taken[n] && (c.Own || owners[n] == "" || owners[n] == c.NS) }
	size := c.Max - c.Min
	for i := range size {
		n := c.Min + (max(c.VLAN-c.Min, 0)+1+i)%size
		if free(n) {
			return n, true
		}
	}
	for n := 1; n < Max; n++ {
		if free(n) {
			return n, true
		}
	}
	return 0, false
}

// prune forgets the earliest deletions beyond MaxTombstones and returns the
// highest life among them: who comes back must begin a later one, because
// others may remember.
func (t table) prune() (floor uint32) {
	var dead []Claim
	for _, c := range t {
		if c.Deleted {
			dead = append(dead, c)
		}
	}
	if len(dead) <= MaxTombstones {
		return 0
	}
	slices.SortFunc(dead, func(a, b Claim) int {
		return cmp.Or(earlier(a, b), cmp.Compare(a.NS, b.NS), cmp.Compare(a.Alias, b.Alias))
	})
	for _, c := range dead[:len(dead)-MaxTombstones] {
		delete(t, c.key())
		floor = max(floor, c.Life)
	}
	return floor
}
