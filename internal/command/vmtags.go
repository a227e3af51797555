package command

import (
	"context"
	"maps"
	"slices"

	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// vmTags is the family `vm tag`.
func vmTags(d *Deps) []Command {
	target := map[string]Completer{"vm": d.vmTargets}
	return []Command{
		{
			Patterns: []string{"vm tag <vm target> [key or all]", "vm tag <vm target> <key> <value>"},
			Short:    "show or set tags of VMs",
			Long:     "With a key and a value, sets a tag. With a key, shows it for each VM; without, or with `all`, shows every tag.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target, Run: d.tag,
		},
		{
			Patterns: []string{"clear vm tag", "clear vm tag <vm target> [tag]"},
			Short:    "remove tags of VMs",
			Long:     "Without a target, removes every tag of every VM of the namespace; with a tag, only that one.\n" + targetHelp,
			Scope:    VMTarget, Suggest: target, Run: d.clearTag,
		},
	}
}

func (d *Deps) tag(_ context.Context, c *Call) (*minicli.Response, error) {
	vms, err := d.VMs.Targets(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	key := c.Str("key")
	if c.Has("value") {
		if key == "all" {
			return nil, errs.New(errs.Invalid, "cannot assign to wildcard")
		}
		for _, v := range vms {
			v.SetTag(key, c.Str("value"))
		}
		return done(nil)
	}
	var rows [][]string
	if key != "" && key != "all" {
		for _, v := range vms {
			rows = append(rows, []string{v.Name, v.Tag(key)})
		}
		return table([]string{"name", "value"}, rows)
	}
	for _, v := range vms {
		tags := v.Config().Tags
		for _, k := range slices.Sorted(maps.Keys(tags)) {
			rows = append(rows, []string{v.Name, k, tags[k]})
		}
	}
	return table([]string{"name", "tag", "value"}, rows)
}

func (d *Deps) clearTag(_ context.Context, c *Call) (*minicli.Response, error) {
	target := c.Str("vm")
	if !c.Has("vm") {
		target = "all"
	}
	vms, err := d.VMs.Targets(c.Namespace, target)
	if err != nil {
		return nil, err
	}
	for _, v := range vms {
		v.ClearTag(c.Str("tag"))
	}
	return done(nil)
}
