package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"minimega/internal/cluster"
	"minimega/internal/host"
)

// owed are the hosts that have yet to be told that a namespace has ended. They
// outlive the daemon: else a host that was away would count as told.
type owed struct {
	dir  string        // "" for nowhere
	turn chan struct{} // holds one token: the right to write the file

	mu sync.Mutex          // guards the field below
	by map[string][]string // hosts by namespace, sorted
}

// owedFile has no suffix, so that it is that of no namespace.
const owedFile = "untold"

func newOwed(dir string) *owed {
	return &owed{dir: dir, turn: make(chan struct{}, 1), by: map[string][]string{}}
}

func (o *owed) file() string { return filepath.Join(o.dir, owedFile) }

// to lists the hosts that are owed the end of a namespace, or of any.
func (o *owed) to(name string) (hosts []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ns, to := range o.by {
		if name == cluster.All || name == ns {
			hosts = append(hosts, to...)
		}
	}
	return hosts
}

// add owes hosts the end of namespaces.
func (o *owed) add(more map[string][]string) error {
	return o.change(func() (changed bool) {
		for ns, hosts := range more {
			all := slices.Concat(o.by[ns], hosts)
			slices.Sort(all)
			if all = slices.Compact(all); len(all) > len(o.by[ns]) {
				o.by[ns], changed = all, true
			}
		}
		return changed
	})
}

// settle takes down that hosts have been told of the end of a namespace, or of
// all, or need not be told; `all` are all hosts.
func (o *owed) settle(name string, hosts ...string) error {
	return o.change(func() (changed bool) {
		for ns, to := range o.by {
			if name != cluster.All && name != ns {
				continue
			}
			left := slices.DeleteFunc(slices.Clone(to), func(h string) bool {
				return slices.Contains(hosts, h) || slices.Contains(hosts, cluster.All)
			})
			if changed = changed || len(left) < len(to); len(left) == 0 {
				delete(o.by, ns)
				continue
			}
			o.by[ns] = left
		}
		return changed
	})
}

// change applies a change, which reports whether there was any, and writes the file.
func (o *owed) change(apply func() bool) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.mu.Lock()
	changed := apply()
	text, err := json.Marshal(o.by)
	left := len(o.by)
	o.mu.Unlock()
	switch {
	case !changed || o.dir == "":
		return nil
	case err == nil && left == 0:
		return o.forget()
	case err == nil:
		err = os.MkdirAll(o.dir, 0o700)
	}
	if err == nil {
		err = host.WriteFile(o.file(), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("which hosts know that a namespace has ended cannot be written down: %w", err)
	}
	return nil
}

// forget removes the file.
func (o *owed) forget() error {
	if o.dir == "" {
		return nil
	}
	if err := os.Remove(o.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(o.dir) // only when it is empty
	return nil
}

// adopt takes over what an earlier daemon owed.
func (o *owed) adopt() error {
	if o.dir == "" {
		return nil
	}
	text, err := readKept(o.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	by := map[string][]string{}
	if err == nil {
		err = json.Unmarshal(text, &by)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.file(), err)
	}
	return o.add(by)
}

// discard drops what an earlier daemon owed, and returns a line for each namespace.
func (o *owed) discard() (lines []string, err error) {
	old := newOwed(o.dir)
	if old.adopt() != nil {
		lines = append(lines, "unreadable file "+o.file())
	}
	for _, ns := range slices.Sorted(maps.Keys(old.by)) {
		lines = append(lines, fmt.Sprintf("note that %s has yet to be told of the end of namespace %s", strings.Join(old.by[ns], ","), ns))
	}
	return lines, o.forget()
}
