package image

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// mounts are the sets of layers, by short name, that are mounted on this host,
// in whatever mount namespace. Containers outlive the daemon that made them,
// so only the kernel knows.
type mounts []map[string]bool

// inStore finds layers in the options of an overlay: after the directory of
// this store, or from an instance directory, which may be another store's.
func (s *Store) inStore() *regexp.Regexp {
	return regexp.MustCompile(`(?:` + regexp.QuoteMeta(s.path(layersDir)) + `|\.\./` + regexp.QuoteMeta(filepath.Base(s.dir)) + `/` + layersDir + `)/([0-9a-f]{16})`)
}

// mounted asks the kernel. Processes that end meanwhile, or are none of this
// user's, are passed by.
func (s *Store) mounted() mounts {
	find := s.inStore()
	var all mounts
	seen := map[string]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, p := range processes {
		ns, err := os.Readlink(filepath.Join(p, "ns/mnt"))
		if err == nil && seen[ns] {
			continue
		}
		info, failed := os.ReadFile(filepath.Join(p, "mountinfo"))
		if failed != nil {
			continue // it has just ended; others may be in its namespace
		}
		seen[ns] = err == nil
		for line := range bytes.Lines(info) {
			if !bytes.Contains(line, []byte(" - overlay ")) {
				continue
			}
			set := map[string]bool{}
			for _, m := range find.FindAllSubmatch(line, -1) {
				set[string(m[1])] = true
			}
			if len(set) > 0 {
				all = append(all, set)
			}
		}
	}
	return all
}

// exactly reports whether these layers, and no others, are mounted.
func (m mounts) exactly(layers []string) bool {
	want := map[string]bool{}
	for _, l := range layers {
		want[short(l)] = true
	}
	return slices.ContainsFunc(m, func(set map[string]bool) bool {
		if len(set) != len(want) {
			return false
		}
		for l := range want {
			if !set[l] {
				return false
			}
		}
		return true
	})
}

// layers returns all that are mounted, as a set of its own.
func (m mounts) layers() map[string]bool {
	all := map[string]bool{}
	for _, set := range m {
		for l := range set {
			all[l] = true
		}
	}
	return all
}
