package minicli

// spot is a place in a pattern that words lead to.
type spot struct {
	p     *pattern
	from  int // where the pattern's command starts in the words
	n     int // how many words from there fit
	exact bool
	outer *spot // the spot of the command that this one is nested in
}

// end is the position of the first word that does not fit.
func (s *spot) end() int { return s.from + s.n }

// item is the piece of the pattern that a word at the spot would have to fit,
// nil if there is none.
func (s *spot) item() *Item {
	last := len(s.p.items) - 1
	if s.n > last && s.p.items[last].Type&List == 0 {
		return nil
	}
	return &s.p.items[min(s.n, last)]
}

// walker follows words along all patterns as far as they go, in any case,
// and keeps the spots that are farthest.
type walker struct {
	cli   *CLI
	toks  []string
	enter bool // go into a nested command also where no word of it is there
	seen  map[int]bool
	spots []*spot
}

func (w *walker) walk(pos, depth int, outer *spot) {
	if depth > MaxDepth || w.seen[pos] {
		return
	}
	if w.seen == nil {
		w.seen = map[int]bool{}
	}
	w.seen[pos] = true
	for _, list := range [2][]*pattern{w.cli.patterns, w.cli.open} {
		for _, p := range list {
			n, exact := p.advance(w.toks[pos:], true)
			w.reach(&spot{p: p, from: pos, n: n, exact: exact, outer: outer}, depth)
		}
	}
}

// reach goes on into a nested command or keeps the spot.
func (w *walker) reach(s *spot, depth int) {
	if s.p.nestedAt(s.n) >= 0 && (s.end() < len(w.toks) || w.enter) {
		w.walk(s.end(), depth+1, s)
		return
	}
	if len(w.spots) > 0 && s.end() > w.spots[0].end() {
		w.spots = w.spots[:0]
	}
	if len(w.spots) == 0 || s.end() == w.spots[0].end() {
		w.spots = append(w.spots, s)
	}
}

// farthest returns the spots that are farthest: those that were typed in full
// if there are such.
func (w *walker) farthest() []*spot {
	var exact []*spot
	for _, s := range w.spots {
		if s.exact {
			exact = append(exact, s)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return w.spots
}

// spell writes the first n pieces of the pattern with abbreviations written
// out, placeholders as in the pattern.
func (p *pattern) spell(toks []string, n int) string {
	text := ""
	for i := 0; i < n && i < len(p.items); i++ {
		if i > 0 {
			text += " "
		}
		switch item := &p.items[i]; {
		case item.Type&Literal != 0:
			text += item.Text
		case item.Type&Choice != 0:
			option, _ := item.option(toks[i], true)
			text += option
		case item.Type&Nested != 0:
			text += "(" + item.Text + ")"
		default:
			text += "<" + item.Text + ">"
		}
	}
	return text
}
