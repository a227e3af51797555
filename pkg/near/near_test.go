package near

import "testing"

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b        string
		limit, want int
	}{
		{"", "", 0, 0}, {"mesh", "mesh", 0, 0}, {"mesh", "mseh", 3, 1}, {"n1", "n12", 2, 1}, {"kitten", "sitting", 5, 3},
		{"", "abc", 3, 3}, {"a", "abcdef", 2, 3},
	} {
		if got := Distance(test.a, test.b, test.limit); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

func TestScore(t *testing.T) {
	long := string(make([]byte, maxScored+1))
	for _, test := range []struct {
		word, typed string
		score       int // -1: not near
	}{
		{"launch", "lanuch", 1}, {"launch", "lunch", 1}, {"launch", "launchh", 1}, {"launch", "la", 10}, {"vm", "vmx", 1},
		{"namespace", "namesXXXX", 20}, {"config", "zebra", -1}, {"a", "b", -1}, {"a", "", -1}, {long, long, -1},
	} {
		score, ok := Score(test.word, test.typed)
		if !ok {
			score = -1
		}
		if score != test.score {
			t.Errorf("%q for %q: %d, want %d", test.word, test.typed, score, test.score)
		}
	}
}
