package namespace

import (
	"encoding/json"
	"fmt"
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

	mu sync.Mutex      // guards the field below
	by map[string]debt // by namespace; none without hosts
}

// debt is who has yet to be told of an end, and which bridges the namespace had
// connected that may still be connected there.
type debt struct {
	Hosts   []string      // sorted
	Bridges []tunnelOrder `json:",omitempty"`
}

// owedFile has no suffix, so that it is that of no namespace.
const owedFile = "untold"

func newOwed(dir string) *owed {
	return &owed{dir: dir, turn: make(chan struct{}, 1), by: map[string]debt{}}
}

func (o *owed) file() string { return filepath.Join(o.dir, owedFile) }

// to lists the hosts that are owed the end of a namespace, or of any, and the
// bridges that they are to part from those of others.
func (o *owed) to(name string) (d debt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ns, one := range o.by {
		if name == cluster.All || name == ns {
			d = d.plus(one)
		}
	}
	return d
}

// plus is a debt of both.
func (d debt) plus(more debt) debt {
	hosts := slices.Concat(d.Hosts, more.Hosts)
	slices.Sort(hosts)
	sum := debt{slices.Compact(hosts), slices.Clone(d.Bridges)}
	for _, b := range more.Bridges {
		if !slices.ContainsFunc(sum.Bridges, func(o tunnelOrder) bool { return o.Bridge == b.Bridge && o.Tunnels.Key == b.Tunnels.Key }) {
			sum.Bridges = append(sum.Bridges, b)
		}
	}
	return sum
}

// add adds debts.
func (o *owed) add(more map[string]debt) error {
	return o.change(func() (changed bool) {
		for ns, d := range more {
			if len(d.Hosts) > 0 {
				o.by[ns], changed = o.by[ns].plus(d), true
			}
		}
		return changed
	})
}

// settle takes down that hosts have been told of the end of a namespace, or of
// all, or need not be told; `all` are all hosts.
func (o *owed) settle(name string, hosts ...string) error {
	return o.change(func() (changed bool) {
		for ns, d := range o.by {
			if name != cluster.All && name != ns {
				continue
			}
			left := slices.DeleteFunc(slices.Clone(d.Hosts), func(h string) bool {
				return slices.Contains(hosts, h) || slices.Contains(hosts, cluster.All)
			})
			if changed = changed || len(left) < len(d.Hosts); len(left) == 0 {
				delete(o.by, ns)
				continue
			}
			o.by[ns] = debt{left, d.Bridges}
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
	if err := host.RemoveFile(o.file()); err != nil {
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
	by := map[string]debt{}
	if err := readKept(o.file(), &by); err != nil || len(by) == 0 {
		return err
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
		lines = append(lines, fmt.Sprintf("note that %s has yet to be told of the end of namespace %s", strings.Join(old.by[ns].Hosts, ","), ns))
	}
	return lines, o.forget()
}
