package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
)

// unifiedControllers are those of version 2; freezing is part of the core, and
// devices are a BPF program.
var unifiedControllers = []string{"cpu", "memory", "pids"}

// makeUnified makes the group in version 2.
func (g *Group) makeUnified(l Limits) error {
	dir := g.Dir()
	if err := mkdir(g.tree.unified, g.name); err != nil {
		return err
	}
	for _, s := range []struct {
		file, value string
		want        bool
	}{
		{"cpu.max", fmt.Sprintf("%d %d", l.CPUs*period, period), l.CPUs != 0},
		{"memory.max", decimal(l.Memory), l.Memory != 0},
		{"memory.swap.max", "0", l.Memory != 0},
		{"pids.max", decimal(l.Pids), l.Pids != 0},
	} {
		if !s.want {
			continue
		}
		err := set(dir, s.file, s.value)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no such controller, see Missing
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareUnified makes the owner's directory and hands the controllers down to it.
func (t *Tree) prepareUnified() error {
	if err := os.MkdirAll(t.unified, 0o755); err != nil {
		return err
	}
	top := filepath.Dir(filepath.Dir(t.unified))
	for _, dir := range []string{top, filepath.Dir(t.unified), t.unified} {
		have, err := get(dir, "cgroup.controllers")
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(have) {
			for _, want := range unifiedControllers {
				if c != want {
					continue
				}
				if err := set(dir, "cgroup.subtree_control", "+"+c); err != nil {
					return fmt.Errorf("hand down controller %s of %s: %w", c, dir, err)
				}
			}
		}
	}
	if t.lent {
		return nil
	}
	return restrictUnified(t.unified)
}

func (g *Group) setFrozenUnified(ctx context.Context, want bool) error {
	word, event := "0", "frozen 0"
	if want {
		word, event = "1", "frozen 1"
	}
	if err := set(g.Dir(), "cgroup.freeze", word); err != nil {
		return err
	}
	return await(ctx, "processes do not become "+event, func() (bool, error) {
		now, err := get(g.Dir(), "cgroup.events")
		return strings.Contains(now, event), err
	})
}

func (g *Group) freezer() (string, error) {
	dir := g.tree.dirs["freezer"]
	if dir == "" {
		return "", errs.WithRemedy(errs.New(errs.Unsupported, "this host has no freezer for control groups"),
			"mount it, or use control groups of version 2")
	}
	return filepath.Join(dir, g.name), nil
}
