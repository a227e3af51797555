package vlan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
)

// Range is where a namespace allocates from: [Min, Max). Next is the number
// that comes next, or Max when there is none. Own is false for a namespace
// that uses the default range.
type Range struct {
	Min, Max, Next int
	Own            bool
}

// Range tells where ns allocates from.
func (r *Registry) Range(ns string) Range {
	r.mu.Lock()
	defer r.mu.Unlock()
	rg := *r.rangeLocked(ns)
	rg.Own = r.ranges[ns] != nil
	rg.Next = r.nextLocked(ns, r.rangeLocked(ns))
	return rg
}

// SetRange makes ns allocate from [min, max), or for Default, everybody who has
// no range of their own.
func (r *Registry) SetRange(ns string, min, max int) error {
	if max <= min {
		return errs.New(errs.Invalid, "expected min > max") // sic: clients know this text
	}
	if min < 0 || max > Max {
		return errNumber
	}
	if err := r.setRange(ns, Range{Min: min, Max: max, Next: min}); err != nil {
		return err
	}
	r.keep()
	return nil
}

func (r *Registry) setRange(ns string, rg Range) error {
	min, max := rg.Min, rg.Max
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range slices.Sorted(maps.Keys(r.ranges)) {
		o := r.ranges[other]
		if ns != Default && other != ns && other != Default && min < o.Max && o.Min < max {
			return errs.New(errs.Exists, "range overlaps with another namespace: %s", other)
		}
	}
	r.ranges[ns] = &rg
	return nil
}

// ParseRange reads "min-max" with 0 <= min < max <= 4096.
func ParseRange(s string) (min, max int, err error) {
	lo, hi, ok := strings.Cut(s, "-")
	if ok {
		min, err = strconv.Atoi(lo)
	}
	if ok && err == nil {
		max, err = strconv.Atoi(hi)
	}
	if !ok || err != nil || min < 0 || max > Max || min >= max {
		return 0, 0, errs.WithRemedy(errs.New(errs.Invalid, "invalid VLAN range: %q", s),
			"write min-max with 0 <= min < max <= 4096, such as 101-4096")
	}
	return min, max, nil
}

// rangeLocked returns the range that ns allocates from.
func (r *Registry) rangeLocked(ns string) *Range {
	if rg := r.ranges[ns]; rg != nil {
		return rg
	}
	return r.ranges[Default]
}

// nextLocked finds the next free number from rg.Next on, once around, or rg.Max.
func (r *Registry) nextLocked(ns string, rg *Range) int {
	size := rg.Max - rg.Min
	for i := range size {
		n := rg.Min + (rg.Next-rg.Min+i)%size
		if _, used := r.names[n]; !used && !r.black[n] && !r.foreignLocked(ns, rg, n) {
			return n
		}
	}
	return rg.Max
}

// foreignLocked reports whether n belongs to the own range of a namespace,
// which those that share the default range must not take from.
func (r *Registry) foreignLocked(ns string, rg *Range, n int) bool {
	if rg != r.ranges[Default] {
		return false
	}
	for other, o := range r.ranges {
		if other != ns && other != Default && n >= o.Min && n < o.Max {
			return true
		}
	}
	return false
}
