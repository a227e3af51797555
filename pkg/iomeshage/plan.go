package iomeshage

import "math/rand/v2"

// chunkState is how far a chunk is.
type chunkState uint8

const (
	missing chunkState = iota
	active             // a source is sending it
	present
)

// plan says which chunk to ask whom for. It does nothing by itself.
type plan struct {
	state []chunkState
	rare  []uint16 // how many of those who are still fetching have a chunk
	left  int      // chunks not present
	// Those who fetch at the same time are numbered, and so is this one among
	// them: each sees to the chunks that have its number, modulo theirs.
	self, all int
}

func newPlan(n int) *plan {
	return &plan{state: make([]chunkState, n), rare: make([]uint16, n), left: n, all: 1}
}

// cost is lower for chunks that are to be fetched first: those that the fewest
// have, and of these those that are this host's to see to.
func (p *plan) cost(i int) int {
	c := 2 * int(p.rare[i])
	if i%p.all != p.self {
		c++
	}
	return c
}

// pick takes one of the chunks for which can is true and that are missing: one
// of those of the least cost, any of them, so that hosts that fetch at the same
// time fetch different ones. It returns -1 for none.
func (p *plan) pick(can func(int) bool) int {
	best, least, ties := -1, 0, 0
	for i, s := range p.state {
		if s != missing {
			continue
		}
		c := p.cost(i)
		if best >= 0 && c > least || !can(i) {
			continue
		}
		if best < 0 || c < least {
			best, least, ties = i, c, 1
			continue
		}
		if ties++; rand.IntN(ties) == 0 {
			best = i
		}
	}
	if best >= 0 {
		p.state[best] = active
	}
	return best
}

// idle reports whether no chunk is missing that nobody is sending.
func (p *plan) idle() bool {
	for _, s := range p.state {
		if s == missing {
			return false
		}
	}
	return true
}

func (p *plan) done(i int) {
	if p.state[i] != present {
		p.state[i] = present
		p.left--
	}
}

func (p *plan) giveBack(i int) {
	if p.state[i] == active {
		p.state[i] = missing
	}
}

// bitmap has a bit for each chunk that is present.
func (p *plan) bitmap() []byte {
	b := make([]byte, (len(p.state)+7)/8)
	for i, s := range p.state {
		if s == present {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// count sets how many of the partial holders have each chunk, and which one this
// host is of all of them.
func (p *plan) count(holders []*found, self int) {
	p.self, p.all = self, len(holders)+1
	clear(p.rare)
	for i := range p.rare {
		for _, f := range holders {
			if f.has(i) {
				p.rare[i]++
			}
		}
	}
}
