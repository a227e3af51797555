package iomeshage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// partialWanted is a list of names in JSON, in the partial directory of a
// directory: what is to come into it. While it is there, and one of
// them is not, the directory is not whole.
const partialWanted = "wanted"

// mark remembers what is to come into a directory.
func (s *Service) mark(dir string, list []*target) error {
	names := s.wanted(dir)
	for _, tg := range list {
		if tg.name == dir && tg.kind() != kindDir || isPattern(dir) {
			return nil // no directory
		}
		if tg.here == nil && tg.name != dir {
			names = append(names, tg.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	body, err1 := json.Marshal(slices.Compact(names))
	head, err2 := json.Marshal(recordHead{Name: dir})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	at, err := s.into(partialDir(dir))
	if err != nil {
		return err
	}
	defer at.Close()
	// The record tells Delete what this is for.
	if err := at.WriteFile(partialRecord, append(head, '\n'), 0o600); err != nil {
		return err
	}
	if err := at.WriteFile(partialWanted+".new", body, 0o600); err != nil {
		return err
	}
	return at.Rename(partialWanted+".new", partialWanted)
}

// wanted is what mark remembers of a directory, unless that is gone.
func (s *Service) wanted(dir string) (names []string) {
	body, err := s.root.ReadFile(path.Join(partialDir(dir), partialWanted))
	if err != nil {
		return nil
	}
	if _, err := s.root.Stat(dir); err != nil || json.Unmarshal(body, &names) != nil {
		return nil
	}
	return names
}

// lacking returns what is still to come into a directory, and
// forgets what was remembered of those that are whole by now.
func (s *Service) lacking(dir string) (out []string) {
	for at := dir; ; at = path.Dir(at) {
		names := s.wanted(at)
		missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			_, err := s.root.Lstat(n) // a link is there, whatever it leads to
			return !errors.Is(err, fs.ErrNotExist)
		})
		if len(names) > 0 && len(missing) == 0 {
			_ = s.root.RemoveAll(partialDir(at)) // it does no harm where it stays
		}
		for _, n := range missing {
			if dir == "." || strings.HasPrefix(n, dir+"/") {
				out = append(out, n)
			}
		}
		if at == "." {
			return out
		}
	}
}

// whole fails if a directory lacks what came from no host.
func (s *Service) whole(label, dir string) error {
	missing := s.lacking(dir)
	if len(missing) == 0 {
		return nil
	}
	more := ""
	if n := len(missing) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("get %s: it came in part only, and no host has %s%s now; get it again when one has, or delete %s to do without", label, missing[0], more, label)
}
