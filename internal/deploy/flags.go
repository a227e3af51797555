package deploy

import (
	"slices"
	"strings"
)

// modes are flags of the program that make no daemon of it, or that are the
// deployed one's own.
var modes = []string{"version", "cli", "e", "attach", "pipe", "namespace", "json", "strict", "headnode", "nostdin"}

// defaultFlags are those of this daemon, with this host as head node.
func (d *Deployer) defaultFlags() []string {
	flags := []string{"-headnode=" + d.opts.Host}
	if d.opts.Flags == nil {
		return append(flags, "-nostdin=true")
	}
	names, values := d.opts.Flags()
	at, _ := slices.BinarySearch(names, "nostdin")
	for i, name := range names {
		if i == at {
			flags = append(flags, "-nostdin=true")
		}
		if !slices.Contains(modes, name) {
			flags = append(flags, "-"+name+"="+values[i])
		}
	}
	if at == len(names) {
		flags = append(flags, "-nostdin=true")
	}
	return flags
}

// flagAt finds the last of a flag in either of its forms, -name=value and
// -name value. next is true for the second form. It is -1 if there is none.
func flagAt(flags []string, name string) (at int, value string, next bool) {
	at = -1
	for i, word := range flags {
		bare, ok := strings.CutPrefix(word, "-")
		if !ok {
			continue
		}
		bare = strings.TrimPrefix(bare, "-")
		if bare == name {
			at, value, next = i, "", i+1 < len(flags)
			if next {
				value = flags[i+1]
			}
		} else if v, ok := strings.CutPrefix(bare, name+"="); ok {
			at, value, next = i, v, false
		}
	}
	return at, value, next
}

// flagValue is the value of a flag, or what it is when left out. A flag without
// a value is "true".
func flagValue(flags []string, name, absent string) string {
	at, value, _ := flagAt(flags, name)
	if at < 0 {
		return absent
	}
	if value == "" {
		return "true"
	}
	return value
}

// keyFlag names the file with the key of the mesh.
const keyFlag = "mesh-key"

// withKeyAt returns flags in which the mesh's key is in another file, and the
// file it is in here, "" for none.
func withKeyAt(flags []string, path string) (changed []string, key string) {
	at, value, next := flagAt(flags, keyFlag)
	if at < 0 || value == "" {
		return flags, ""
	}
	changed = slices.Clone(flags)
	if next {
		changed[at+1] = path
	} else {
		changed[at] = "-" + keyFlag + "=" + path
	}
	return changed, value
}
