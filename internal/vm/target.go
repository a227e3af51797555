package vm

import (
	"context"
	"errors"
	"slices"

	"minimega/internal/errs"
	"minimega/pkg/ranges"
)

// targets returns the VMs of a namespace that a target means and an operation
// applies to. A target is a comma list of names, IDs and ranges, or `all`. Only
// a target of a single name can be in error; in longer lists what is missing
// is passed over, as scripts written for many hosts expect.
func (m *Manager) targets(namespace, target string, applies func(v *VM, wild bool) bool) ([]*VM, error) {
	words, err := ranges.Split(target)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if slices.Contains(words, "all") {
		return slices.DeleteFunc(m.List(namespace), func(v *VM) bool { return !applies(v, true) }), nil
	}
	var vms []*VM
	for _, w := range words {
		m.mu.Lock()
		v := m.findLocked(namespace, w)
		m.mu.Unlock()
		switch {
		case v == nil && len(words) == 1:
			return nil, errs.New(errs.NotFound, "vm not found: %s", w)
		case v == nil:
			m.opts.Log.Warn("vm not found", "target", w, "namespace", namespace)
		case !applies(v, false) && len(words) == 1:
			return nil, errs.New(errs.State, "VM state error: %s", w)
		case applies(v, false) && !slices.Contains(vms, v):
			vms = append(vms, v)
		}
	}
	return vms, nil
}

// Targets returns the VMs that a target means, whatever their state.
func (m *Manager) Targets(namespace, target string) ([]*VM, error) {
	return m.targets(namespace, target, func(*VM, bool) bool { return true })
}

func (m *Manager) eachTarget(ctx context.Context, namespace, target, verb string, applies func(*VM, bool) bool, do func(*VM, context.Context) error) error {
	vms, err := m.targets(namespace, target, applies)
	if err != nil {
		return err
	}
	if len(vms) == 1 { // whoever named one VM need not be told which: clients match these texts
		err := do(vms[0], ctx)
		if errors.Is(err, errs.State) {
			return err
		}
		return errs.InVM(errs.AtStep(err, verb), vms[0].Name)
	}
	return each(ctx, vms, func(ctx context.Context, v *VM) error {
		return errs.AtStep(do(v, ctx), verb)
	})
}
