package membership

import (
	"cmp"
	"slices"
	"time"
)

// node is what is known of one node: its newest record, or only that others
// declare links to it.
type node struct {
	key     uint64
	version uint64 // 0: no record yet
	boot    uint64
	id      ID
	name    string
	context string
	addrs   []string
	gone    bool
	crowded bool
	frame   []byte

	declared []*node // whom its record names, by key
	adjacent []*node // those of them who name it too
	refs     int     // nodes that declare it

	// What the last search found.
	walk   uint64 // number of the last walk of spare that came by
	search uint64 // number of the last search that reached it
	hops   int
	via    *node // first neighbour on the way, nil for self
	said   *node // via when routes were last announced
	prev   *node // node before it on the way

	member  bool          // announced by Joined, and not by Left since
	was     bool          // was a member at some time
	asBoot  uint64        // the boot announced
	joined  time.Duration // when
	lost    time.Duration // since when it is known but out of reach
	again   bool          // passed on once more since it was lost
	changed time.Duration // when its record last changed
}

// table holds the records, and the graph that they make.
type table struct {
	nodes    map[uint64]*node
	self     *node
	records  int
	declared int // sum over all nodes

	searches uint64
	walks    uint64
	reached  []*node // of the last search, self first, nearest first
	sorted   []*node // the same by key, nil until asked for
	lost     []*node // with a record, but out of reach
	digest   uint64  // of those reached
	queue    []*node // spare
}

func newTable() table { return table{nodes: map[uint64]*node{}} }

// at returns the node of a key, made when it is not there.
func (t *table) at(key uint64) *node {
	n := t.nodes[key]
	if n == nil {
		n = &node{key: key}
		t.nodes[key] = n
	}
	return n
}

// release forgets a node of which nothing is known and to which nobody has a
// link.
func (t *table) release(n *node) {
	if n.version == 0 && n.refs == 0 && n != t.self {
		delete(t.nodes, n.key)
	}
}

// put stores a record that is newer than what is there. It reports whether the
// graph changed.
func (t *table) put(n *node, r *record, now time.Duration) bool {
	if n.version == 0 {
		t.records++
		if n != t.self {
			n.lost = now
			t.lost = append(t.lost, n)
			t.sorted = nil
		}
	}
	if n.search == t.searches && n.search > 0 {
		t.digest ^= n.mark()
		defer func() { t.digest ^= n.mark() }()
	}
	n.version, n.boot, n.gone, n.crowded = r.version, r.boot, r.gone, r.crowded
	n.id, n.name, n.context, n.addrs = r.id, r.name, r.context, r.addrs
	n.frame, n.changed = r.frame, now
	return t.declare(n, r.peers)
}

// declare replaces the links that n declares, given by sorted keys. It reports
// whether a link came or went that both ends declare.
func (t *table) declare(n *node, keys []uint64) (changed bool) {
	old := n.declared
	links := make([]*node, 0, len(keys))
	i := 0
	for _, k := range keys {
		for i < len(old) && old[i].key < k {
			changed = t.undeclare(n, old[i]) || changed
			i++
		}
		if i < len(old) && old[i].key == k {
			links = append(links, old[i])
			i++
			continue
		}
		p := t.at(k)
		p.refs++
		links = append(links, p)
		if p.declares(n) {
			n.adjacent, p.adjacent = append(n.adjacent, p), append(p.adjacent, n)
			changed = true
		}
	}
	for ; i < len(old); i++ {
		changed = t.undeclare(n, old[i]) || changed
	}
	t.declared += len(links) - len(old)
	n.declared = links
	return changed
}

// undeclare ends one link of n.
func (t *table) undeclare(n, p *node) bool {
	p.refs--
	both := p.declares(n)
	if both {
		n.adjacent, p.adjacent = without(n.adjacent, p), without(p.adjacent, n)
	}
	t.release(p)
	return both
}

func without(list []*node, n *node) []*node {
	if i := slices.Index(list, n); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func byKey(n *node, key uint64) int { return cmp.Compare(n.key, key) }

func (n *node) declares(p *node) bool {
	_, ok := slices.BinarySearchFunc(n.declared, p.key, byKey)
	return ok
}

// remove forgets a record.
func (t *table) remove(n *node) {
	t.declare(n, nil)
	t.records--
	n.version, n.boot, n.frame, n.id, n.name, n.context, n.addrs = 0, 0, nil, "", "", "", nil
	n.gone, n.crowded, n.again, n.was = false, false, false, false
	t.sorted = nil
	t.release(n)
}

// expire forgets the records that were out of reach for longer than age.
func (t *table) expire(now, age time.Duration) {
	keep := t.lost[:0]
	for _, n := range t.lost {
		if now-n.lost > age {
			t.remove(n)
			continue
		}
		keep = append(keep, n)
	}
	clear(t.lost[len(keep):])
	t.lost = keep
}

// mix spreads a number over 64 bits (the finalizer of MurmurHash3).
func mix(v uint64) uint64 {
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	v ^= v >> 33
	v *= 0xc4ceb9fe1a85ec53
	return v ^ v>>33
}

// mark is a node's part in the digest.
func (n *node) mark() uint64 { return mix(n.key ^ mix(n.version^mix(n.boot))) }

// find searches the graph from self, breadth first.
func (t *table) find() {
	t.searches++
	t.digest, t.sorted = 0, nil
	self := t.self
	self.search, self.hops, self.via, self.prev = t.searches, 0, nil, nil
	queue := append(t.queue[:0], self)
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		t.digest ^= n.mark()
		for _, p := range n.adjacent {
			if p.search == t.searches {
				continue
			}
			p.search, p.hops, p.prev, p.via = t.searches, n.hops+1, n, n.via
			if n == self {
				p.via = p
			}
			queue = append(queue, p)
		}
	}
	t.reached, t.queue = queue, t.reached
}

// inReach reports whether the last search reached n.
func (t *table) inReach(n *node) bool { return n.search == t.searches && t.searches > 0 }

// current lists by key what a summary tells: who is in reach, and records so
// new that the search has yet to find their links.
func (t *table) current() []*node {
	if t.sorted != nil {
		return t.sorted
	}
	t.sorted = slices.Clone(t.reached)
	for _, n := range t.lost {
		if !n.was && !n.gone && !t.inReach(n) {
			t.sorted = append(t.sorted, n)
		}
	}
	slices.SortFunc(t.sorted, func(a, b *node) int { return cmp.Compare(a.key, b.key) })
	return t.sorted
}

// weight orders the links of the graph, the same at both ends: those of crowded
// nodes are the first to go.
func weight(a, b *node) uint64 {
	w := mix(min(a.key, b.key)^mix(max(a.key, b.key))) >> 1
	if a.crowded || b.crowded {
		w |= 1 << 63
	}
	return w
}

// spare reports whether the link from self to p is the heaviest of a circle,
// so that the graph holds together without it. Links of the lightest spanning
// tree are the heaviest of no circle: however many nodes cut such links at the
// same moment, the tree stays.
func (t *table) spare(p *node) bool {
	limit := weight(t.self, p)
	t.walks++
	t.self.walk = t.walks
	queue := append(t.queue[:0], t.self)
	defer func() { t.queue = queue[:0] }()
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		for _, next := range n.adjacent {
			if next.walk == t.walks || weight(n, next) >= limit {
				continue
			}
			if next == p {
				return true
			}
			next.walk = t.walks
			queue = append(queue, next)
		}
	}
	return false
}
