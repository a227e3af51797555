package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// makeLegacy makes the group in each hierarchy of version 1.
func (g *Group) makeLegacy(l Limits) error {
	for _, c := range wanted {
		parent := g.tree.dirs[c]
		if parent == "" || g.tree.shared(c) {
			continue
		}
		err := mkdir(parent, g.name)
		if err == nil {
			err = limitLegacy(c, filepath.Join(parent, g.name), l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) prepareLegacy() error {
	for _, dir := range t.dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if dir := t.dirs["devices"]; dir != "" {
		return restrict(dir)
	}
	return nil
}

func mkdir(parent, name string) error {
	err := os.Mkdir(filepath.Join(parent, name), 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func limitLegacy(controller, dir string, l Limits) error {
	switch {
	case controller == "cpu" && l.CPUs != 0:
		return errors.Join(set(dir, "cpu.cfs_period_us", decimal(period)), set(dir, "cpu.cfs_quota_us", decimal(l.CPUs*period)))
	case controller == "memory" && l.Memory != 0:
		err := set(dir, "memory.limit_in_bytes", decimal(l.Memory))
		// Swap does not add to it; kernels without swap accounting lack the file.
		if swap := set(dir, "memory.memsw.limit_in_bytes", decimal(l.Memory)); swap != nil && !errors.Is(swap, fs.ErrNotExist) {
			err = errors.Join(err, swap)
		}
		return err
	case controller == "pids" && l.Pids != 0:
		return set(dir, "pids.max", decimal(l.Pids))
	}
	return nil
}

// restrict gives a directory the list of devices. Containers of an earlier
// daemon may be in it: what is in the list already stays in it at all times.
func restrict(dir string) error {
	have, err := get(dir, "devices.list")
	if err == nil && strings.HasPrefix(have, "a ") { // all are allowed
		have = ""
		err = set(dir, "devices.deny", "a")
	}
	lines := strings.Split(have, "\n")
	for _, d := range allowed {
		if err == nil && !slices.Contains(lines, d.String()) {
			err = set(dir, "devices.allow", d.String())
		}
	}
	return err
}

// Freeze stops all processes of the group, and returns when they stand still.
func (g *Group) Freeze(ctx context.Context) error {
	err := g.setFrozen(ctx, true)
	if err == nil || g.tree.none() {
		return err
	}
	// Some may stand still, and as the group counts as running nobody would thaw them.
	return errors.Join(err, g.Thaw(context.WithoutCancel(ctx)))
}

// Thaw lets them go on.
func (g *Group) Thaw(ctx context.Context) error { return g.setFrozen(ctx, false) }

func (g *Group) setFrozen(ctx context.Context, want bool) error {
	if g.tree.none() {
		return freezeNone(want)
	}
	if g.tree.unified != "" {
		return g.setFrozenUnified(ctx, want)
	}
	dir, err := g.freezer()
	if err != nil {
		return err
	}
	word := "THAWED"
	if want {
		word = "FROZEN"
	}
	return await(ctx, "processes do not become "+word, func() (bool, error) {
		// Written again each time: the kernel gives up on processes that were
		// in the middle of something, and tries again then.
		if err := set(dir, "freezer.state", word); err != nil {
			return false, err
		}
		now, err := get(dir, "freezer.state")
		return now == word, err
	})
}

// Frozen reports whether the group is frozen.
func (g *Group) Frozen() (bool, error) {
	if g.tree.none() {
		return false, nil
	}
	if g.tree.unified != "" {
		now, err := get(g.Dir(), "cgroup.freeze")
		return now == "1", err
	}
	dir, err := g.freezer()
	if err != nil {
		return false, err
	}
	now, err := get(dir, "freezer.state")
	return now != "THAWED", err
}
