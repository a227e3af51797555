package cgroup

import (
	"slices"

	"minimega/internal/errs"
)

// Remedy is what an ordinary user can do to have control groups.
const Remedy = "run minimega as root, or where systemd lends it a group: systemd-run --user --scope -p Delegate=yes minimega"

// None returns a tree without any controllers, for who may not make control
// groups: its groups limit nothing and cannot be frozen.
func None() *Tree { return &Tree{dirs: map[string]string{}, missing: slices.Clone(wanted)} }

// none reports whether there are no control groups.
func (t *Tree) none() bool { return t.unified == "" && len(t.dirs) == 0 }

// freezeNone is Freeze and Thaw where there are no control groups: nothing is
// ever frozen.
func freezeNone(want bool) error {
	if !want {
		return nil
	}
	return errs.WithRemedy(errs.New(errs.Unsupported, "a container cannot be paused without control groups, which need root"), Remedy)
}
