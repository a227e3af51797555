// Package near tells which words may have been meant by one that was mistyped.
package near

import "strings"

// Distance counts the letters (bytes) to change, add, remove or swap with their
// neighbour to get from a to b (optimal string alignment), or is more than limit
// if there are more. Words whose lengths alone differ by more cost nothing.
func Distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	rows := make([]int, 3*(len(b)+1))
	before, last, row := rows[:len(b)+1], rows[len(b)+1:2*(len(b)+1)], rows[2*(len(b)+1):]
	for j := range last {
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
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// maxScored bounds the words that Score compares.
const maxScored = 64

// Score tells how near a word is to one that was typed: less is nearer, below 4
// for few letters to change, from 10 for words that only start alike. It is not
// ok for words that are not near, or have more than 64 bytes.
func Score(word, typed string) (score int, ok bool) {
	if typed == "" || max(len(typed), len(word)) > maxScored {
		return 0, false
	}
	allowed := min(1+len(typed)/4, 3)
	if d := Distance(word, typed, allowed); d <= allowed && d < len(typed) {
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
