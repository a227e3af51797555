// Package figure measures and prints what the programs under bench show: a
// median of ours beside the median of a peer measured in the same run.
package figure

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"
)

// Median returns the middle of the values, and Quantile the one below which
// the share q of them lies.
func Median[T cmp.Ordered](values []T) T { return Quantile(values, 0.5) }

// Quantile returns the value below which the share q of the values lies.
func Quantile[T cmp.Ordered](values []T, q float64) T {
	s := slices.Sorted(slices.Values(values))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// Time measures one call.
func Time(do func() error) (time.Duration, error) {
	start := time.Now()
	err := do()
	return time.Since(start), err
}

// Against prints durations of ours beside a peer's, and their ratio.
func Against(what string, ours []time.Duration, peer string, theirs []time.Duration, target string) {
	a, b := Median(ours), Median(theirs)
	fmt.Printf("%-46s %12s   %s %s   ratio %.2f   (target: %s)\n", what, round(a), peer, round(b), float64(a)/float64(b), target)
}

// Alone prints a figure that has no peer.
func Alone(what, value, target string) {
	fmt.Printf("%-46s %12s   (target: %s)\n", what, value, target)
}

func round(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(10 * time.Nanosecond)
}

// Main runs a benchmark and ends the program with its status.
func Main(run func() error) {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
