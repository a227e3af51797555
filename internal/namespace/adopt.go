package namespace

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"minimega/internal/host"
	"minimega/internal/scheduler"
	"minimega/internal/vm"
)

const (
	fileSuffix = ".json"
	maxFile    = 64 << 20 // bytes
)

// file is where that of a namespace is kept which a later daemon cannot know.
func (n *Namespace) file() string { return filepath.Join(n.registry.opts.Dir, n.Name+fileSuffix) }

// record is the content of file. What was never set is left out.
type record struct {
	Configs map[string]*vm.Config `json:",omitempty"`
	Hosts   []string              `json:",omitempty"`
	NoHosts bool                  `json:",omitempty"` // Hosts is empty on purpose
	Queue   bool                  `json:",omitempty"` // launches wait
	Load    scheduler.Metric      `json:",omitempty"`
	Limits  *scheduler.Limits     `json:",omitempty"`
	Bridges map[string]tunnels    `json:",omitempty"`
}

func (n *Namespace) recordLocked() record {
	r := record{Configs: n.saved, Hosts: n.hosts, NoHosts: len(n.hosts) == 0, Queue: n.queueing, Load: n.load, Bridges: n.bridges}
	if len(n.hosts) == 1 && n.hosts[0] == n.registry.host() && n.Name == Default {
		r.Hosts = nil
	}
	if r.Load == scheduler.CPUCommit {
		r.Load = ""
	}
	if l := n.limits; l != (scheduler.Limits{}) {
		r.Limits = &l
	}
	return r
}

// keep writes the file for a later daemon.
func (n *Namespace) keep() {
	if n.registry.opts.Dir == "" {
		return
	}
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	n.mu.Lock()
	text, err := json.MarshalIndent(n.recordLocked(), "", "\t")
	n.mu.Unlock()
	if err == nil {
		err = os.MkdirAll(n.registry.opts.Dir, 0o700)
	}
	if err == nil {
		err = host.WriteFile(n.file(), append(text, '\n'), 0o600)
	}
	if err != nil {
		n.registry.opts.Log.Warn("hosts and stored configurations will not outlive this minimega", "namespace", n.Name, "err", err)
	}
}

// forget removes what keep wrote.
func (n *Namespace) forget() error {
	if n.registry.opts.Dir == "" {
		return nil
	}
	_, err := n.discardQueue()
	err = errors.Join(err, host.RemoveFile(n.presentFile()), host.RemoveFile(n.file()))
	_ = os.Remove(n.registry.opts.Dir) // only when it is empty
	return err
}

// DropHalfSaved removes what an earlier daemon had saved by half. VMs are adopted
// after that, so that none completes a save into files that go.
func (r *Registry) DropHalfSaved() error {
	if r.opts.Files == "" {
		return nil
	}
	return dropParts(filepath.Join(r.opts.Files, SavedDir))
}

// Adopt takes over what an earlier daemon kept of its namespaces. Files that
// cannot be used are named in the error.
func (r *Registry) Adopt() error {
	names, err := r.kept()
	failed := []error{err, r.owed.adopt()}
	for _, name := range names {
		failed = append(failed, r.adopt(name))
	}
	return errors.Join(failed...)
}

// Discard removes what an earlier daemon kept of its namespaces, and returns a
// line for each. A file that cannot be read is named as well.
func (r *Registry) Discard() ([]string, error) {
	names, err := r.kept()
	lines, untold := r.owed.discard()
	failed := []error{err, untold}
	for _, name := range names {
		n := newNamespace(r, name)
		kept, err := n.read()
		lines = append(lines, kept.lines(name, r.host(), err)...)
		if p, err := n.readPresent(); err != nil || p != (present{}) {
			lines = append(lines, "present configuration of namespace "+name)
		}
		queued, stuck := n.discardQueue()
		lines = append(lines, queued...)
		failed = append(failed, stuck, n.forget())
	}
	return lines, errors.Join(failed...)
}

// lines says in words what a record holds; that a namespace has no host but here
// is not worth a word. bad is why the record could not be read.
func (r *record) lines(namespace, here string, bad error) []string {
	var lines []string
	add := func(what string) { lines = append(lines, what+" of namespace "+namespace) }
	for _, name := range slices.Sorted(maps.Keys(r.Configs)) {
		add("stored configuration " + name)
	}
	if r.NoHosts || len(r.Hosts) > 0 && !slices.Equal(r.Hosts, []string{here}) {
		add("hosts " + strings.Join(r.Hosts, ","))
	}
	if r.Queue {
		add("queueing")
	}
	if r.Load != "" {
		add("load metric " + string(r.Load))
	}
	if r.Limits != nil {
		add("limits (" + r.Limits.String() + ")")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Bridges)) {
		add("connection of bridge " + name)
	}
	if bad != nil {
		add("unreadable file")
	}
	return lines
}

// kept returns the namespaces of which there are files.
func (r *Registry) kept() ([]string, error) {
	if r.opts.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(r.opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	failed := []error{err, host.RemoveTemps(r.opts.Dir)}
	names := map[string]bool{}
	for _, e := range entries {
		for suffix, kind := range map[string]fs.FileMode{fileSuffix: 0, presentSuffix: 0, queueSuffix: fs.ModeDir} {
			if name, ok := strings.CutSuffix(e.Name(), suffix); ok && e.Type() == kind && CheckName(name) == nil {
				names[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), errors.Join(failed...)
}

func (r *Registry) adopt(name string) error {
	ns, err := r.Get(name)
	if err != nil {
		return err
	}
	kept, err := ns.read()
	if err == nil {
		ns.restore(kept)
	}
	return errors.Join(err, ns.adoptPresent(), ns.adoptQueue())
}

// read is what an earlier daemon kept of the namespace, beside its queue.
func (n *Namespace) read() (r record, err error) {
	if err := readKept(n.file(), &r); err != nil {
		return record{}, err
	}
	return r, nil
}

// readKept reads a file that an earlier daemon kept into to, which stays as it is
// if there is none.
func readKept(path string, to any) error {
	_, err := host.ReadJSON(path, maxFile, to)
	return err
}

// restore takes over what an earlier daemon kept.
func (n *Namespace) restore(r record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, c := range r.Configs {
		if c != nil {
			n.saved[name] = c
		}
	}
	if len(r.Hosts) > 0 || r.NoHosts {
		n.hosts = r.Hosts
	}
	if r.Load != "" {
		n.load = r.Load
	}
	if r.Limits != nil {
		n.limits = *r.Limits
	}
	n.queueing = r.Queue
	maps.Copy(n.bridges, r.Bridges)
}
