package minicli

import (
	"maps"
	"slices"
)

// diskspec is the key of the list whose elements are preprocessed by whoever
// parses them, since only their path may be.
const diskspec = "diskspec"

// Preprocess replaces every string argument and every list element by what f
// makes of it, except the elements of a list with the key diskspec. The first
// error ends it and leaves the command as it was. A nested command is left
// alone: it is preprocessed when it is run.
func (c *Command) Preprocess(f func(string) (string, error)) error {
	strs := make(map[string]string, len(c.Strings))
	for _, key := range slices.Sorted(maps.Keys(c.Strings)) {
		v, err := f(c.Strings[key])
		if err != nil {
			return err
		}
		strs[key] = v
	}
	lists := make(map[string][]string, len(c.Lists))
	for _, key := range slices.Sorted(maps.Keys(c.Lists)) {
		list := slices.Clone(c.Lists[key])
		for i := 0; i < len(list) && key != diskspec; i++ {
			v, err := f(list[i])
			if err != nil {
				return err
			}
			list[i] = v
		}
		lists[key] = list
	}
	if c.typed == nil {
		c.typed = &arguments{c.Strings, c.Lists}
	}
	c.Strings, c.Lists = strs, lists
	return nil
}

// Typed returns a copy of the command, nested ones included, whose arguments
// are those from before any Preprocess.
func (c *Command) Typed() *Command {
	if c == nil {
		return nil
	}
	n := *c
	if c.typed != nil {
		n.Strings, n.Lists = c.typed.strings, c.typed.lists
	}
	n.Sub = c.Sub.Typed()
	return n.Clone()
}
