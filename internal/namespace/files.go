package namespace

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/pkg/iomeshage"
)

// Share is what a launch asks about files that hosts have under one name.
type Share interface {
	// Stack names the file at a path and those it stands on, in the files directory.
	Stack(path string) []string
	// State tells what is here at a name.
	State(name string) (iomeshage.State, bool)
	// Compare fails with errs.Exists if what is here differs from what a host has.
	Compare(ctx context.Context, name, host string, theirs iomeshage.State) error
}

// sharedFile is a file as one of the hosts has it: that which is meant.
type sharedFile struct {
	Host  string
	State iomeshage.State
}

// maxSharedNames bounds how many files a host is asked about.
const maxSharedNames = 20000

// states tells what this host has of some files.
func (r *Registry) states(names []string) map[string]iomeshage.State {
	if r.opts.Share == nil || len(names) == 0 {
		return nil
	}
	found := map[string]iomeshage.State{}
	for _, name := range names[:min(len(names), maxSharedNames)] {
		if s, ok := r.opts.Share.State(name); ok {
			found[name] = s
		}
	}
	return found
}

// add takes down which files a host has. Of several hosts the first that has a
// file is whose content is meant.
func (f *findings) add(host string, files map[string]iomeshage.State) {
	for name, s := range files {
		if _, ok := f.files[name]; !ok {
			f.files[name] = sharedFile{host, s}
		}
	}
}

// sharedNames names what the VMs of groups read in the files directory, each
// once, with what that stands on here. Where there is no other host to differ
// from it is nothing.
func (r *Registry) sharedNames(hosts []string, groups []*Group) []string {
	if r.opts.Share == nil || !slices.ContainsFunc(hosts, func(h string) bool { return h != r.host() }) {
		return nil
	}
	paths, names := map[string]bool{}, map[string]bool{}
	for _, g := range groups {
		_ = g.Config.Clone().EachFile(func(path *string) error {
			if _, ok := within(*path, r.opts.Files); ok && !written(g.Config, *path) {
				paths[*path] = true
			}
			return nil
		})
	}
	for path := range paths {
		for _, name := range r.opts.Share.Stack(path) {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// written reports whether VMs may write to a path of their configuration, so
// that each host has its own content there.
func written(c *vm.Config, path string) bool {
	if slices.Contains(slices.Collect(maps.Values(c.VolumePaths)), path) {
		return true
	}
	return !c.Snapshot && (path == c.FilesystemPath || slices.ContainsFunc(c.Disks, func(d vm.DiskConfig) bool { return d.Path == path }))
}

// localFiles prepares the files of one order, each once.
type localFiles struct {
	r        *Registry
	order    *launchOrder
	fetched  map[string]bool // by path
	compared map[string]bool // by path, and by name of what stands below
}

// localise makes the paths of a configuration that lie in the files directory
// of the host that ordered those in ours, and brings what is missing. What is
// here must be what the host that ordered means.
func (l *localFiles) localise(ctx context.Context, c *vm.Config) error {
	if l.r.opts.Fetch == nil {
		return nil
	}
	before := c.Clone()
	return c.EachFile(func(path *string) error {
		rel, ok := within(*path, l.order.Files)
		if !ok {
			return nil
		}
		shared := !written(before, *path)
		*path = filepath.Join(l.r.opts.Files, rel)
		if err := l.fetch(ctx, *path); err != nil {
			return errs.AtStep(err, "fetch "+rel)
		}
		if !shared {
			return nil
		}
		return errs.AtStep(l.compare(ctx, *path), "compare files")
	})
}

func (l *localFiles) fetch(ctx context.Context, path string) error {
	if l.fetched[path] {
		return nil
	}
	l.fetched[path] = true
	if err := l.r.opts.Fetch(ctx, path); err != nil && !errors.Is(err, errs.NotFound) {
		return err
	}
	return nil // what nobody has is for the engine to miss
}

// compare fails if what is here at a path is not what is meant. A host that
// cannot be asked any more does not stop a launch.
func (l *localFiles) compare(ctx context.Context, path string) error {
	if l.r.opts.Share == nil || len(l.order.Shared) == 0 || l.compared[path] {
		return nil
	}
	l.compared[path] = true
	for _, name := range l.r.opts.Share.Stack(path) {
		meant, ok := l.order.Shared[name]
		if !ok || meant.Host == l.r.host() || l.compared[name] {
			continue
		}
		l.compared[name] = true
		switch err := l.r.opts.Share.Compare(ctx, name, meant.Host, meant.State); {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errs.Exists):
			return err
		default:
			l.r.opts.Log.Warn("a file has another time than on another host, and cannot be compared; the one here is used", "file", name, "host", meant.Host, "err", err)
		}
	}
	return nil
}

// within is the path of what lies in a files directory, relative to it.
func within(path, files string) (rel string, ok bool) {
	rel, err := filepath.Rel(files, path)
	return rel, err == nil && files != "" && filepath.IsAbs(path) && filepath.IsLocal(rel) && rel != "."
}
