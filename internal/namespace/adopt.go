package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/host"
	"minimega/internal/vm"
)

const (
	fileSuffix = ".json"
	maxFile    = 64 << 20 // bytes
)

// file is where the stored configurations of the namespace are kept.
func (n *Namespace) file() string { return filepath.Join(n.registry.opts.Dir, n.Name+fileSuffix) }

// keep writes the stored configurations for a later daemon.
func (n *Namespace) keep() {
	if n.registry.opts.Dir == "" {
		return
	}
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	n.mu.Lock()
	text, err := json.MarshalIndent(n.saved, "", "\t")
	n.mu.Unlock()
	if err == nil {
		err = os.MkdirAll(n.registry.opts.Dir, 0o700)
	}
	if err == nil {
		err = host.WriteFile(n.file(), append(text, '\n'), 0o600)
	}
	if err != nil {
		n.registry.opts.Log.Warn("stored configurations will not outlive this minimega", "namespace", n.Name, "err", err)
	}
}

// forget removes what keep wrote.
func (n *Namespace) forget() error {
	if n.registry.opts.Dir == "" {
		return nil
	}
	if err := os.Remove(n.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(n.registry.opts.Dir) // only when it is empty
	return nil
}

// Adopt takes over the stored configurations of an earlier daemon. Files that
// cannot be used are named in the error.
func (r *Registry) Adopt() error {
	names, err := r.kept()
	failed := []error{err}
	for _, name := range names {
		failed = append(failed, r.adopt(name))
	}
	return errors.Join(failed...)
}

// Discard removes the stored configurations of an earlier daemon.
func (r *Registry) Discard() error {
	names, err := r.kept()
	failed := []error{err}
	for _, name := range names {
		failed = append(failed, (&Namespace{Name: name, registry: r}).forget())
	}
	return errors.Join(failed...)
}

// kept returns the namespaces of which there are stored configurations.
func (r *Registry) kept() ([]string, error) {
	if r.opts.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(r.opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	failed := []error{err, host.RemoveTemps(r.opts.Dir)}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), fileSuffix); ok && CheckName(name) == nil && e.Type().IsRegular() {
			names = append(names, name)
		}
	}
	return names, errors.Join(failed...)
}

func (r *Registry) adopt(name string) error {
	ns, err := r.Get(name)
	if err != nil {
		return err
	}
	if st, err := os.Stat(ns.file()); err != nil || st.Size() > maxFile {
		return fmt.Errorf("%s cannot be used: %w", ns.file(), errors.Join(err, errors.ErrUnsupported))
	}
	text, err := os.ReadFile(ns.file())
	if err != nil {
		return err
	}
	var saved map[string]*vm.Config
	if err := json.Unmarshal(text, &saved); err != nil {
		return fmt.Errorf("%s: %w", ns.file(), err)
	}
	ns.mu.Lock()
	defer ns.mu.Unlock()
	for name, c := range saved {
		if c != nil {
			ns.saved[name] = c
		}
	}
	return nil
}
