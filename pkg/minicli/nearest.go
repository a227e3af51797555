package minicli

import (
	"slices"

	"minimega/pkg/near"
)

// nearest lists the continuations whose word may have been meant by typed:
// with few letters changed first, then those that start alike.
func nearest(list []continuation, typed string) []string {
	type scored struct {
		text  string
		score int
	}
	var found []scored
	for _, c := range list {
		if score, ok := near.Score(lower(c.word), lower(typed)); ok {
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
