package minicli

import (
	"slices"
	"strings"
)

// maxTyped bounds the words that are compared letter by letter.
const maxTyped = 64

// nearest lists the continuations whose word may have been meant by typed:
// with few letters changed first, then those that start alike.
func nearest(list []continuation, typed string) []string {
	if typed == "" || len(typed) > maxTyped {
		return nil
	}
	type scored struct {
		text  string
		score int
	}
	var found []scored
	for _, c := range list {
		if score, ok := likeness(lower(c.word), lower(typed)); ok {
			found = append(found, scored{c.text(), score})
		}
	}
	slices.SortStableFunc(found, func(a, b scored) int { return a.score - b.score })
	var out []string
	for _, f := range found {
		out = append(out, f.text)
	}
	return out
}

// likeness is lower for words that are more alike; not ok if they are not.
func likeness(word, typed string) (int, bool) {
	allowed := min(1+len(typed)/4, 3)
	if len(word) > maxTyped {
		return 0, false
	}
	if d := distance(word, typed); d <= allowed && d < len(typed) {
		return d, true
	}
	if len(word) > 1 && strings.HasPrefix(typed, word) || strings.HasPrefix(word, typed) {
		return 10, true
	}
	if half := (len(typed) + 1) / 2; half >= 2 && strings.HasPrefix(word, typed[:half]) {
		return 20, true
	}
	return 0, false
}

// distance counts the letters to insert, delete, change or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	var before, last, row [maxTyped + 1]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
