package minicli

import "strings"

// grade says how well a word fits a piece of a pattern.
type grade int

const (
	unfit  grade = iota
	prefix       // a beginning of the word
	full         // the whole word, or a placeholder
)

// fit compares a typed word with a word of the language.
func fit(word, typed string, fold bool) grade {
	ok := strings.HasPrefix(word, typed)
	if !ok && fold {
		ok = hasPrefixFold(word, typed)
	}
	switch {
	case !ok:
		return unfit
	case len(word) == len(typed):
		return full
	}
	return prefix
}

// option finds the option that typed stands for: one typed in full, or the
// only one that starts with it. It is "" if there is none.
func (i *Item) option(typed string, fold bool) (string, grade) {
	found, best, many := "", unfit, false
	for _, option := range i.Options {
		switch fit(option, typed, fold) {
		case full:
			return option, full
		case prefix:
			many = best == prefix || many
			found, best = option, prefix
		}
	}
	if many {
		return "", unfit
	}
	return found, best
}

// fits compares a typed word with a piece that takes one word or a list.
func (i *Item) fits(typed string, fold bool) grade {
	switch {
	case i.Type&Literal != 0:
		return fit(i.Text, typed, fold)
	case i.Type&Choice != 0:
		_, g := i.option(typed, fold)
		return g
	case i.Type&Nested != 0:
		return unfit
	}
	return full
}

// advance walks along the pattern as long as words fit, up to a nested
// command, and returns how many did. Exact means that every literal and choice
// on the way was typed in full.
func (p *pattern) advance(toks []string, fold bool) (n int, exact bool) {
	exact = true
	for n < len(toks) && n < len(p.items) {
		item := &p.items[n]
		g := item.fits(toks[n], fold)
		if g == unfit {
			return n, exact
		}
		exact = exact && g == full
		if item.Type&List != 0 {
			return len(toks), exact
		}
		n++
	}
	return n, exact
}

// complete reports whether the pattern is satisfied by n fitting words of
// total, nothing nested.
func (p *pattern) complete(n, total int) bool {
	if n < total || p.items[len(p.items)-1].Type&Nested != 0 {
		return false
	}
	return n >= len(p.items) || n == len(p.items)-1 && p.items[n].Type&Optional != 0
}

// nestedAt returns the position of the pattern's nested command if n fitting
// words lead to it, else -1.
func (p *pattern) nestedAt(n int) int {
	if n < len(p.items) && p.items[n].Type&Nested != 0 {
		return n
	}
	return -1
}

// fill makes a command of the words; those that are missing are left out. A
// list is a part of toks.
func (p *pattern) fill(toks []string, fold bool) *Command {
	c := &Command{Handler: p.handler, Pattern: p.text}
	for n := 0; n < len(toks) && n < len(p.items); n++ {
		item := &p.items[n]
		switch {
		case item.Type&String != 0:
			if c.Strings == nil {
				c.Strings = make(map[string]string, 4)
			}
			c.Strings[item.Key] = toks[n]
		case item.Type&Choice != 0:
			if c.Choices == nil {
				c.Choices = make(map[string]bool, 2)
			}
			option, _ := item.option(toks[n], fold)
			c.Choices[option] = true
		case item.Type&List != 0:
			c.Lists = map[string][]string{item.Key: toks[n:len(toks):len(toks)]}
		}
	}
	return c
}
