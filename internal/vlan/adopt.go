package vlan

import (
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
}

func (r *Registry) rulesText() []byte {
	r.mu.Lock()
	o := rules{Ranges: map[string]Range{}, Blacklist: slices.Sorted(maps.Keys(r.black))}
	for ns, rg := range r.ranges {
		o.Ranges[ns] = *rg
	}
	r.mu.Unlock()
	text, err := json.MarshalIndent(o, "", "\t")
	if err != nil { // plain data always marshals
		return []byte(err.Error())
	}
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
	failed := []error{r.adoptRules(o)}
	f, err := os.Open(r.path)
	if err == nil {
		err = errors.Join(r.Load(f), f.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		failed = append(failed, fmt.Errorf("%s: %w", r.path, err))
	}
	r.keep()
	return true, errors.Join(failed...)
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
		if n >= 0 && n < Max {
			r.black[n] = true
		}
	}
	r.mu.Unlock()
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
