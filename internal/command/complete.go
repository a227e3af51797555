package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Completers for the placeholders that many commands share.

func (d *Deps) vmNames(c *Call, prefix string) []string {
	// In a list of names only the last one is completed.
	head, last := "", prefix
	if i := strings.LastIndexByte(prefix, ','); i >= 0 {
		head, last = prefix[:i+1], prefix[i+1:]
	}
	var out []string
	for _, name := range d.NS.VMNames(c.Namespace) {
		if strings.HasPrefix(name, last) {
			out = append(out, head+name)
		}
	}
	return out
}

func (d *Deps) vmTargets(c *Call, prefix string) []string {
	out := d.vmNames(c, prefix)
	if strings.HasPrefix("all", prefix) {
		out = append(out, "all")
	}
	return out
}

// whyNames are the names of VMs, and of those that wait to be one.
func (d *Deps) whyNames(c *Call, prefix string) []string {
	out := d.vmNames(c, prefix)
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return out
	}
	for _, g := range ns.Queue() {
		for _, name := range withPrefix(g.Names, prefix) {
			if name != "" {
				out = append(out, name)
			}
		}
	}
	return out
}

func (d *Deps) savedConfigs(c *Call, prefix string) []string {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return nil
	}
	return withPrefix(ns.Saved(), prefix)
}

func (d *Deps) namespaces(_ *Call, prefix string) []string { return withPrefix(d.NS.Names(), prefix) }

func (d *Deps) vlanNames(c *Call, prefix string) []string {
	var out []string
	for _, a := range d.VLANs.List(c.Namespace) {
		if strings.HasPrefix(a.Alias, prefix) {
			out = append(out, a.Alias)
		}
	}
	return out
}

// fileNames completes a path in the files directory, or an absolute one.
func (d *Deps) fileNames(_ *Call, prefix string) []string {
	dir, base := filepath.Split(prefix)
	where := dir
	if !filepath.IsAbs(prefix) {
		where = filepath.Join(d.Files, dir)
	}
	entries, err := os.ReadDir(where)
	if err != nil {
		return nil // nothing there to propose
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), base) || base == "" && strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name := dir + e.Name()
		if e.Type()&fs.ModeDir != 0 {
			name += "/"
		}
		out = append(out, name)
	}
	return out
}

func withPrefix(words []string, prefix string) []string {
	var out []string
	for _, w := range words {
		if strings.HasPrefix(w, prefix) {
			out = append(out, w)
		}
	}
	return out
}
