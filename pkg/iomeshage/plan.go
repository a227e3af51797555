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
}

func newPlan(n int) *plan {
	return &plan{state: make([]chunkState, n), rare: make([]uint16, n), left: n}
}

// pick takes one of the chunks for which can is true and that are missing: one
// of those that the fewest have, any of them, so that hosts that fetch at the
// same time fetch different ones. It returns -1 for none.
func (p *plan) pick(can func(int) bool) int {
	best, ties := -1, 0
	for i, s := range p.state {
		if s != missing || best >= 0 && p.rare[i] > p.rare[best] || !can(i) {
			continue
		}
		if best < 0 || p.rare[i] < p.rare[best] {
			best, ties = i, 1
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

// count sets how many of the partial holders have each chunk.
func (p *plan) count(holders []*found) {
	clear(p.rare)
	for i := range p.rare {
		for _, f := range holders {
			if f.has(i) {
				p.rare[i]++
			}
		}
	}
}
