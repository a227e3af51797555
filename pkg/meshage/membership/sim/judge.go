package sim

// Truth says whether a is to have b as a member.
type Truth func(a, b *Node) bool

// Connected is the truth of a network in which everybody can dial everybody.
func Connected(a, b *Node) bool { return b.Alive && a.Group == b.Group }

// Judge says what members are right from now on.
func (s *Net) Judge(truth Truth) {
	s.truth, s.wrong = truth, 0
	for _, n := range s.Nodes {
		s.examine(n)
	}
	s.right = s.now
}

// Wrong counts the nodes whose members are not right.
func (s *Net) Wrong() int { return s.wrong }

// examine counts what is wrong with the members of one node.
func (s *Net) examine(n *Node) {
	n.wrong = 0
	if !n.Alive {
		return
	}
	for _, b := range s.Nodes {
		if n.members[b.index] != s.truth(n, b) {
			n.wrong++
		}
	}
	if n.wrong > 0 {
		s.wrong++
	}
}

// revive lets a node live or die, and judges anew what concerns it.
func (s *Net) revive(n *Node, alive bool) {
	before := make([]bool, len(s.Nodes))
	for i, b := range s.Nodes {
		before[i] = b.members[n.index] != s.truth(b, n)
	}
	if n.wrong > 0 {
		s.wrong--
	}
	n.Alive, n.members = alive, map[int]bool{n.index: true}
	for i, b := range s.Nodes {
		if b == n || !b.Alive {
			continue
		}
		now := b.members[n.index] != s.truth(b, n)
		if now != before[i] {
			s.count(b, now)
		}
	}
	s.examine(n)
	s.right = s.now
}

// count adds an error to a node, or takes one off.
func (s *Net) count(n *Node, more bool) {
	switch {
	case more:
		if n.wrong++; n.wrong == 1 {
			s.wrong++
		}
	default:
		if n.wrong--; n.wrong == 0 {
			s.wrong--
			s.right = s.now
		}
	}
}

func (s *Net) changed(n *Node, i int, joined bool) {
	if n.members[i] == joined {
		s.Twice++
		return
	}
	n.members[i] = joined
	s.count(n, joined != s.truth(n, s.Nodes[i]))
}
