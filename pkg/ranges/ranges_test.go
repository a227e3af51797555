package ranges

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		spec, want string
	}{
		{"foo[1-3,5]", "foo1 foo2 foo3 foo5"},
		{"a[01-03]", "a01 a02 a03"},
		{"a[08-10]", "a08 a09 a10"},
		{"a[01-03,5]", "a1 a2 a3 a5"},
		{"a[98-100]", "a98 a99 a100"},
		{"a[5,1-3,2]", "a1 a2 a3 a5"},
		{"a[1-2],b,c[7]", "a1 a2 b c7"},
		{"b,a,b", "b a"},
		{"foo", "foo"},
		{"a,,b,", "a b"},
		{"", ""},
		{"[1-3]", "1 2 3"},
		{"a[0]", "a0"},
	} {
		got, err := Split(tt.spec)
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("Split(%q) = %q, %v, want %q", tt.spec, got, err, tt.want)
		}
	}
}

func TestSplitErrors(t *testing.T) {
	for spec, want := range map[string]string{
		"foo[1-2].bar":                 "invalid range specification",
		"foo[1-2][3]":                  "invalid range specification",
		"foo[1[2]]":                    "nested '[' at char 5",
		"foo]":                         "unmatched ']' at char 3",
		"foo[1]]":                      "unmatched ']' at char 6",
		"foo[1":                        "unterminated '['",
		"foo[1-x]":                     "invalid subrange 1-x",
		"foo[]":                        "invalid subrange ",
		"foo[3-1]":                     "invalid subrange 3-1",
		"foo[+1]":                      "invalid subrange +1",
		"foo[1-2-3]":                   "invalid subrange 1-2-3",
		"foo[1-99999999999999]":        "range expands to more than 1000000 names",
		"a[1-600000],b[1-600000]":      "range expands to more than 1000000 names",
		"a[1-99999999999999999999999]": "invalid subrange 1-99999999999999999999999",
	} {
		if got, err := Split(spec); err == nil || err.Error() != want {
			t.Errorf("Split(%q) = %d names, %v, want error %q", spec, len(got), err, want)
		}
	}
}

func TestCompact(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"foo1.bar foo2.bar", "foo[1-2].bar"},
		{"foo1 foo2 foo3 foo5", "foo[1-3,5]"},
		{"foo01 foo02", "foo[1-2]"},
		{"foo01", "foo01"},
		{"b a", "a,b"},
		{"a1 a1 a1", "a1"},
		{"a1 a01", "a1"},
		{"rack1node1 rack1node2 rack2node7", "rack1node[1-2],rack2node7"},
		{"r1n1 r2n1 r3n1", "r[1-3]n1"},
		{"", ""},
		{"99999999999999999999999 99999999999999999999998", "99999999999999999999998,99999999999999999999999"},
	} {
		if got := Compact(strings.Fields(tt.names)); got != tt.want {
			t.Errorf("Compact(%q) = %q, want %q", tt.names, got, tt.want)
		}
	}
}

func TestInts(t *testing.T) {
	got, err := Ints("8,0-3,2")
	if err != nil || fmt.Sprint(got) != "[0 1 2 3 8]" {
		t.Errorf("Ints = %v, %v", got, err)
	}
	if s := CompactInts([]int{8, 3, 1, 0, 2, 2, -4}); s != "0-3,8" {
		t.Errorf("CompactInts = %q", s)
	}
	for _, bad := range []string{"", "a", "1-", "-1", "0-99999999999", "1,,2"} {
		if got, err := Ints(bad); err == nil {
			t.Errorf("Ints(%q) = %d numbers, want an error", bad, len(got))
		}
	}
}

// What Compact makes of names without leading zeros, Split undoes, as long as
// the number stands at the end.
func TestCompactSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Custom(func(t *rapid.T) string {
			return rapid.StringMatching(`[a-c]{1,2}`).Draw(t, "p") + fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "n"))
		})
		names := sorted(rapid.SliceOf(name).Draw(t, "names"))
		back, err := Split(Compact(names))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(back)
		if !slices.Equal(back, names) && len(back)+len(names) > 0 {
			t.Fatalf("%q -> %q -> %q", names, Compact(names), back)
		}
	})
}

func TestIntsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOfN(rapid.IntRange(0, 200), 1, 50).Draw(t, "numbers")
		back, err := Ints(CompactInts(numbers))
		slices.Sort(numbers)
		if err != nil || !slices.Equal(back, slices.Compact(numbers)) {
			t.Fatalf("%v -> %v, %v", numbers, back, err)
		}
	})
}

// Hostile lists must not cost more than their size.
func TestSplitIsLinear(t *testing.T) {
	start := time.Now()
	if _, err := Split("a[" + strings.Repeat("1-1000000,", 20000) + "7]"); err != nil {
		t.Error(err)
	}
	if _, err := Split(strings.Repeat("a[1-1000],", 20000)); err == nil {
		t.Error("20 million names were expanded")
	}
	Compact([]string{strings.Repeat("1a", 1<<19), strings.Repeat("1b", 1<<19)})
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"foo[1-3,5]", "a[01-03],b", "a[", "]", "a[1]b", "a[1-999999]", ",,", "[][]", "a[1-2,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		names, err := Split(spec)
		if len(names) > MaxNames {
			t.Fatalf("%d names", len(names))
		}
		if err != nil && len(names) > 0 {
			t.Fatal("names and an error")
		}
		if len(names) > 1000 {
			return
		}
		short := Compact(names)
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if again := Compact(names); again != short {
			t.Fatalf("order matters: %q, %q", short, again)
		}
		_, _ = Ints(spec)
	})
}
