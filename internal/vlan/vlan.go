// Package vlan owns the names of VLANs: aliases per namespace, the ranges that
// they are allocated from, and the numbers that allocation must leave alone.
//
// Hosts of a mesh agree on the numbers by claims: see Claim for what they agree
// on, and Peers for how. A host alone needs none of it.
package vlan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"minimega/internal/errs"
	"minimega/internal/statefile"
)

const (
	// Default is the namespace whose range is the one of everybody without their own.
	Default = "minimega"
	// Disconnected is the number of an interface that is on no VLAN.
	Disconnected = -1
	// Max is the first number that is no VLAN.
	Max = 4096

	separator = "//"
	maxName   = 255 // bytes of an alias or namespace
)

// Alias is one name of a namespace.
type Alias struct {
	Alias string
	VLAN  int
}

type key struct{ ns, alias string }

// reservation is the name under which a number is kept from allocation.
func reservation(n int) key { return key{alias: strconv.Itoa(n)} }

func (k key) String() string { return k.ns + separator + k.alias }

// FullName returns "namespace//alias" of an alias as typed in ns, "" for "".
func FullName(ns, alias string) string {
	if alias == "" || strings.Contains(alias, separator) {
		return alias
	}
	return key{ns, alias}.String()
}

// Registry knows all aliases of this host. Methods may be called by any goroutine.
type Registry struct {
	log   *slog.Logger
	path  string
	file  *statefile.File // nil: nothing is written
	rules *statefile.File // ranges and blacklist, for a later daemon

	mu      sync.Mutex // guards the fields below; never held over I/O
	claims  table      // what is known; the next three follow from it
	numbers map[key]int
	names   map[int]key // the inverse of numbers
	black   map[int]bool
	ranges  map[string]*Range
	agreement
}

// New returns an empty registry that shows itself in the file at path (""
// writes none). The default range is 101-4096.
func New(path string, log *slog.Logger) *Registry {
	r := &Registry{path: path, log: log, claims: table{}, agreement: newAgreement()}
	r.resetLocked()
	if path != "" {
		r.file = statefile.New(path, r.Text, log)
		r.rules = statefile.New(path+rulesSuffix, r.rulesText, log)
	}
	return r
}

func (r *Registry) resetLocked() {
	r.numbers = map[key]int{}
	r.names = map[int]key{}
	r.ranges = map[string]*Range{Default: {Min: 101, Max: Max, Next: 101}}
	r.black = map[int]bool{}
}

// Close parts from the peers, waits for renumberings and writes what is due to
// the file.
func (r *Registry) Close() error {
	r.SetPeers(nil)
	r.closeAgreement()
	if r.file == nil {
		return nil
	}
	err := errors.Join(r.file.Close(), r.rules.Close())
	if gone := os.Remove(r.path + rulesSuffix); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone) // they are for whoever adopts, and there is nothing to
	}
	return err
}

// Flush returns when the file shows the present state.
func (r *Registry) Flush() error {
	if r.file == nil {
		return nil
	}
	return errors.Join(r.file.Flush(), r.rules.Flush())
}

// keep returns when the files show the present state, which comes before the
// answer to whoever changed it. The caller does not hold mu.
func (r *Registry) keep() {
	if err := r.Flush(); err != nil && !errors.Is(err, os.ErrClosed) {
		r.log.Error("cannot write the VLANs", "err", err)
	}
}

func (r *Registry) changed() {
	if r.file != nil {
		r.file.Changed()
		r.rules.Changed()
	}
}

var (
	errNumber = errs.New(errs.Invalid, "invalid VLAN (0 <= vlan < 4096)")
	errEmpty  = errs.New(errs.Invalid, "VLAN must be non-empty string")
)

// Resolve is ResolveContext for those who have nothing to wait less for.
func (r *Registry) Resolve(ns, spec string) (vlan int, alias string, err error) {
	return r.ResolveContext(context.Background(), ns, spec)
}

// ResolveContext turns what was typed for a VLAN into its number: an integer
// from 0 to 4095, which allocation leaves alone from then on, or an alias of ns,
// or "namespace//alias". An alias that is not known is allocated, after asking
// the peers, for a second at most and no longer than ctx lasts. alias is spec as
// typed, or "" for an integer.
func (r *Registry) ResolveContext(ctx context.Context, ns, spec string) (vlan int, alias string, err error) {
	if spec == "" {
		return 0, "", errEmpty
	}
	if n, isNumber, err := number(spec); isNumber {
		if err != nil {
			return 0, "", err
		}
		return n, "", r.Blacklist(n)
	}
	k, err := parseKey(ns, spec)
	if err != nil {
		return 0, "", err
	}
	if n, ok, wait := r.settled(k); ok && wait == nil {
		return n, spec, nil
	}
	if vlan, err = r.await(ctx, k); err != nil {
		return 0, "", err
	}
	return vlan, spec, nil
}

// Lookup is Resolve without any effect: an unknown alias is NotFound.
func (r *Registry) Lookup(ns, spec string) (int, error) {
	if n, isNumber, err := number(spec); isNumber {
		return n, err
	}
	k, err := parseKey(ns, spec)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.numbers[k]; ok {
		return n, nil
	}
	return 0, errs.New(errs.NotFound, "no VLAN has the alias %s", spec)
}

// number reads an integer; isNumber is true also for one that is no VLAN.
func number(spec string) (n int, isNumber bool, err error) {
	n, err = strconv.Atoi(spec)
	switch {
	case err == nil && n >= 0 && n < Max:
		return n, true, nil
	case err == nil, errors.Is(err, strconv.ErrRange):
		return 0, true, errNumber
	}
	return 0, false, nil
}

// parseKey splits "alias" or "namespace//alias". Names must survive the file,
// one line each, the number behind the last blank.
func parseKey(ns, spec string) (key, error) {
	k := key{ns, spec}
	if before, after, ok := strings.Cut(spec, separator); ok {
		k = key{before, after}
	}
	if k.alias == "" {
		return key{}, errEmpty
	}
	if k.ns == "" || strings.Contains(k.alias, separator) || !clean(k.ns) || !clean(k.alias) {
		return key{}, errs.New(errs.Invalid, "malformed VLAN alias: %q", spec)
	}
	if _, isNumber, _ := number(k.alias); isNumber {
		return key{}, errs.New(errs.Invalid, "a number cannot be an alias: %q", spec)
	}
	return k, nil
}

func clean(s string) bool {
	return len(s) <= maxName && utf8.ValidString(s) && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, func(c rune) bool { return !strconv.IsPrint(c) })
}

// allocateLocked gives k the next free number of its namespace's range.
func (r *Registry) allocateLocked(k key) error {
	rg := r.rangeLocked(k.ns)
	n := r.nextLocked(k.ns, rg)
	if n == rg.Max {
		return errs.WithRemedy(errs.New(errs.Resource, "out of VLANs"),
			fmt.Sprintf("all of %d-%d is in use: `clear vlans` frees, `vlans range` widens", rg.Min, rg.Max))
	}
	r.claimLocked(k, n)
	rg.Next = n + 1
	return nil
}

// Add gives the number to the alias of ns.
func (r *Registry) Add(ns, alias string, vlan int) error {
	if alias == "" {
		return errEmpty
	}
	k, err := parseKey(ns, alias)
	if err != nil {
		return err
	}
	if vlan < 0 || vlan >= Max {
		return errNumber
	}
	ctx, cancel := context.WithTimeout(context.Background(), agreeTime)
	defer cancel()
	return r.add(ctx, k, vlan)
}

func (r *Registry) addLocked(k key, vlan int) error {
	if _, ok := r.numbers[k]; ok {
		return errAlias
	}
	if _, ok := r.names[vlan]; ok {
		return errVLAN
	}
	r.claimLocked(k, vlan)
	return nil
}

var (
	errAlias = errs.New(errs.Exists, "alias already in use")
	errVLAN  = errs.New(errs.Exists, "vlan already in use")
)

// Print shows a number the way `vm info` does to a reader in ns: "a (101)",
// "other//a (101)", "101" or "disconnected".
func (r *Registry) Print(ns string, vlan int) string {
	if vlan == Disconnected {
		return "disconnected"
	}
	r.mu.Lock()
	k, ok := r.names[vlan]
	r.mu.Unlock()
	switch {
	case !ok:
		return strconv.Itoa(vlan)
	case k.ns == ns:
		return fmt.Sprintf("%s (%d)", k.alias, vlan)
	}
	return fmt.Sprintf("%s (%d)", k, vlan)
}

// Qualified returns "namespace//alias" of a number, or the number if it has no name.
func (r *Registry) Qualified(vlan int) string {
	if vlan == Disconnected {
		return "disconnected"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.names[vlan]; ok {
		return k.String()
	}
	return strconv.Itoa(vlan)
}

// List returns the aliases of ns, sorted by name.
func (r *Registry) List(ns string) []Alias {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Alias
	for k, n := range r.numbers {
		if k.ns == ns {
			list = append(list, Alias{k.alias, n})
		}
	}
	slices.SortFunc(list, func(a, b Alias) int { return cmp.Compare(a.Alias, b.Alias) })
	return list
}

// Blacklist keeps a number from being allocated.
func (r *Registry) Blacklist(vlan int) error {
	if vlan < 0 || vlan >= Max {
		return errNumber
	}
	r.mu.Lock()
	known := r.black[vlan]
	if !known {
		r.reserveLocked(vlan)
	}
	r.mu.Unlock()
	if !known {
		r.keep()
		r.publish()
	}
	return nil
}

// Blacklisted returns the numbers that are kept from allocation, in order.
func (r *Registry) Blacklisted() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.black))
}

// Clear forgets the aliases of ns that start with prefix. The prefix "all"
// resets everything, of all namespaces: aliases, ranges, blacklist.
func (r *Registry) Clear(ns, prefix string) {
	defer r.publish()
	defer r.keep()
	r.mu.Lock()
	defer r.mu.Unlock()
	if prefix == "all" {
		def := r.ranges[Default]
		r.forgetLocked(func(key) bool { return true })
		r.resetLocked()
		r.ranges[Default] = &Range{Min: def.Min, Max: def.Max, Next: def.Min}
	} else {
		r.forgetLocked(func(k key) bool { return k.ns == ns && strings.HasPrefix(k.alias, prefix) })
	}
	r.changed()
}

// DeleteNamespace forgets the aliases and the range of ns. The default range stays.
func (r *Registry) DeleteNamespace(ns string) {
	defer r.publish()
	defer r.keep()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(func(k key) bool { return k.ns == ns })
	if ns != Default {
		delete(r.ranges, ns)
	}
	r.changed()
}
