package vlan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"minimega/internal/errs"
)

// rulesSuffix is what the name of the second file ends in: the first has a
// layout that is known to others, and no place for ranges.
const rulesSuffix = ".json"

// rules is the content of the second file.
type rules struct {
	Ranges    map[string]Range
	Blacklist []int

	// Agreed is nil as long as no other host knows of our claims, which then
	// follow from the rest.
	Agreed *agreed `json:",omitempty"`
}

// agreed is what hosts agree with, so that it goes on where it was.
type agreed struct {
	Origin string
	Clock  uint64
	Floor  uint32
	Claims []Claim
}

func (r *Registry) rulesText() []byte {
	r.mu.Lock()
	o := rules{Ranges: map[string]Range{}, Blacklist: slices.Sorted(maps.Keys(r.black))}
	if r.shared {
		o.Agreed = &agreed{Origin: r.origin, Clock: r.clock, Floor: r.floor, Claims: slices.Collect(maps.Values(r.claims))}
		sortClaims(o.Agreed.Claims)
	}
	for ns, rg := range r.ranges {
		o.Ranges[ns] = *rg
	}
	r.mu.Unlock()
	text, err := json.Marshal(o)
	if err != nil { // plain data always marshals
		return []byte(err.Error())
	}
	text = bytes.ReplaceAll(text, []byte(`},{"ns"`), []byte("},\n{\"ns\"")) // a claim a line; in strings quotes are escaped
	return append(text, '\n')
}

// Adopt takes over the aliases, ranges and numbers of an earlier daemon from
// its files. A daemon that ended well has left no ranges, and with it went all
// that the aliases were for. It must come before the first change. It reports
// whether there was something to take over, the default range with it.
func (r *Registry) Adopt() (bool, error) {
	text, err := readFile(r.path + rulesSuffix)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var o rules
	if err := json.Unmarshal(text, &o); err != nil {
		return false, fmt.Errorf("%s: %w", r.path+rulesSuffix, err)
	}
	failed := []error{r.adoptClaims(o.Agreed), r.adoptRules(o)}
	f, err := os.Open(r.path)
	if err == nil {
		err = errors.Join(r.adoptRows(f), f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		failed = append(failed, fmt.Errorf("%s: %w", r.path, err))
	}
	r.keep()
	return true, errors.Join(failed...)
}

// Discard drops what an earlier daemon left in the files, and returns a line for
// each alias, range and number kept from use. Files that cannot be read are no
// reason to keep them. It must come before the first change.
func (r *Registry) Discard() []string {
	text, err := readFile(r.path + rulesSuffix)
	if err != nil {
		return nil // a daemon that ended well leaves none
	}
	var lines []string
	if f, err := os.Open(r.path); err == nil {
		rows, _ := parse(f)
		f.Close()
		for _, row := range rows {
			lines = append(lines, fmt.Sprintf("VLAN alias %s (%d) of namespace %s", row.alias, row.vlan, row.ns))
		}
	}
	var o rules
	if json.Unmarshal(text, &o) == nil {
		for _, ns := range slices.Sorted(maps.Keys(o.Ranges)) {
			if rg := o.Ranges[ns]; ns != Default || rg.Min != r.Range(Default).Min || rg.Max != r.Range(Default).Max {
				lines = append(lines, fmt.Sprintf("VLAN range %d-%d of namespace %s", rg.Min, rg.Max, ns))
			}
		}
		for _, n := range o.Blacklist {
			lines = append(lines, fmt.Sprintf("reservation of VLAN %d", n))
		}
	}
	r.keep()
	return lines
}

func (r *Registry) adoptRules(o rules) error {
	var failed []error
	for _, ns := range slices.Sorted(maps.Keys(o.Ranges)) {
		rg := o.Ranges[ns]
		rg.Own = false
		if rg.Min < 0 || rg.Max > Max || rg.Min >= rg.Max || rg.Next < rg.Min || rg.Next > rg.Max {
			failed = append(failed, errs.New(errs.Invalid, "VLAN range of %s: %d-%d", ns, rg.Min, rg.Max))
			continue
		}
		failed = append(failed, r.setRange(ns, rg))
	}
	r.mu.Lock()
	for _, n := range o.Blacklist {
		if n >= 0 && n < Max && !r.black[n] {
			r.reserveLocked(n)
		}
	}
	r.mu.Unlock()
	return errors.Join(failed...)
}

// adoptClaims takes over what was agreed on with others.
func (r *Registry) adoptClaims(o *agreed) error {
	if o == nil {
		return nil
	}
	good, err := checked(o.Claims)
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.Origin != "" && len(o.Origin) <= maxName && clean(o.Origin) {
		r.origin = o.Origin
	}
	r.clock, r.floor, r.shared = min(max(r.clock, o.Clock), maxClock), o.Floor, true
	for _, c := range good {
		r.clock = max(r.clock, c.Clock)
		r.claims.join(c)
	}
	r.reassignLocked()
	return err
}

// adoptRows reads the first file, which shows the numbers of this host, for
// those aliases that the claims say nothing of: it may come from a program that
// knew no claims, or be newer than they.
func (r *Registry) adoptRows(from io.Reader) error {
	rows, err := parse(from)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var failed []error
	for _, row := range rows {
		if r.numbers[row.key] == row.vlan && r.names[row.vlan] == row.key {
			continue
		}
		if err := r.addLocked(row.key, row.vlan); err != nil {
			failed = append(failed, fmt.Errorf("line %d: %w", row.line, err))
		}
	}
	r.changed()
	return errors.Join(failed...)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errs.New(errs.Invalid, "%s is longer than %d bytes", path, maxFile)
	}
	return text, err
}
