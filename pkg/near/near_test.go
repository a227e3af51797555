package near

import "testing"

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b        string
		limit, want int
	}{
		{"", "", 0, 0}, {"mesh", "mesh", 0, 0}, {"mesh", "mseh", 3, 2}, {"n1", "n12", 2, 1}, {"kitten", "sitting", 5, 3},
		{"", "abc", 3, 3}, {"a", "abcdef", 2, 3},
	} {
		if got := Distance(test.a, test.b, test.limit); got != test.want {
			t.Errorf("%q to %q: %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
