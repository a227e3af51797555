package namespace

import (
	"slices"
	"time"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// Bounds of what is remembered of launches that failed.
const (
	maxRefused = 128  // launches
	maxNames   = 1024 // names of one
)

// refused is what is remembered of VMs that were not launched, for one reason.
type refused struct {
	when    time.Time
	names   []string // the first of them
	vms     int      // all of them, those without a name too
	failure vm.Failure
}

// note takes down what came of a launch: err is its error, nil for none. A VM
// that the error names has its own reason, the others share the first. Those
// that are there tell by themselves. What was remembered before of these names,
// and with "" among them of VMs without one, is over.
func (n *Namespace) note(names []string, err error) {
	n.mu.Lock()
	before := len(n.refused)
	n.mu.Unlock()
	if err == nil && before == 0 {
		return
	}
	open := make(map[string]bool, len(names))
	for _, name := range names {
		open[name] = true
	}
	list := n.reasons(names, open, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetRefusedLocked(open)
	n.refused = append(n.refused, list...)
	if over := len(n.refused) - maxRefused; over > 0 {
		n.refused = slices.Delete(n.refused, 0, over)
	}
}

// reasons are what is to be remembered of an error.
func (n *Namespace) reasons(names []string, known map[string]bool, err error) (list []refused) {
	now := time.Now()
	there := n.registry.opts.VMs.Exists
	own := map[string]bool{}
	all := leaves(err)
	for _, e := range all {
		f := vm.Failure{Facts: errs.FactsOf(e), Text: e.Error()}
		if f.VM == "" || !known[f.VM] || own[f.VM] {
			continue
		}
		if own[f.VM] = true; !there(n.Name, f.VM) {
			list = append(list, refused{now, []string{f.VM}, 1, f})
		}
	}
	if len(all) == 0 {
		return nil
	}
	rest := refused{when: now, failure: vm.Failure{Facts: errs.FactsOf(all[0]), Text: all[0].Error()}}
	for _, name := range names {
		if name != "" && (own[name] || there(n.Name, name)) {
			continue
		}
		if rest.vms++; name != "" && len(rest.names) < maxNames {
			rest.names = append(rest.names, name)
		}
	}
	if rest.vms > 0 {
		list = append(list, rest)
	}
	return list
}

// forgetRefusedLocked drops what is remembered of these names. The caller holds mu.
func (n *Namespace) forgetRefusedLocked(gone map[string]bool) {
	for i, r := range n.refused {
		left := slices.DeleteFunc(slices.Clone(r.names), func(name string) bool { return gone[name] })
		vms := r.vms - (len(r.names) - len(left))
		if gone[""] && len(r.names) < maxNames { // else it is not known which have names
			vms = len(left)
		}
		n.refused[i].names, n.refused[i].vms = left, vms
	}
	n.refused = slices.DeleteFunc(n.refused, func(r refused) bool { return r.vms <= 0 })
}

// ForgetRefused drops what is remembered of launches that failed here.
func (r *Registry) ForgetRefused(namespace string) {
	r.mu.Lock()
	n := r.spaces[namespace]
	r.mu.Unlock()
	if n == nil {
		return
	}
	n.mu.Lock()
	n.refused = nil
	n.mu.Unlock()
}

// leaves are the errors that were joined, in order.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// whyRefused explains VMs that were not launched, or that one of this name, the
// latest last. there tells which of them have been launched since.
func (n *Namespace) whyRefused(name string, there func(name string) bool) []vm.Why {
	n.mu.Lock()
	list := slices.Clone(n.refused)
	n.mu.Unlock()
	var whys []vm.Why
	for _, r := range list {
		if name != "" && !slices.Contains(r.names, name) {
			continue
		}
		names := slices.DeleteFunc(slices.Clone(r.names), func(s string) bool { return name != "" && s != name || there(s) })
		vms := r.vms - (len(r.names) - len(names))
		if name != "" {
			vms = len(names)
		}
		if vms == 0 {
			continue
		}
		f := r.failure
		whys = append(whys, vm.Why{Name: label(names), VMs: vms, Namespace: n.Name, Host: n.registry.host(), ID: -1, When: r.when, Failure: &f, Findings: []vm.Finding{}})
	}
	return whys
}
