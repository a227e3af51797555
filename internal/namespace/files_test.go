package namespace

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"minimega/internal/cluster"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
	"minimega/pkg/iomeshage"
	"minimega/pkg/meshage"
	"minimega/pkg/meshage/meshtest"
)

// kinds gives the errors of files a kind, as the daemon does.
type kinds struct{ *iomeshage.Service }

func (k kinds) Compare(ctx context.Context, name, host string, theirs iomeshage.State) error {
	err := k.Service.Compare(ctx, name, host, theirs)
	if errors.Is(err, iomeshage.ErrConflict) {
		return errs.Wrap(errs.Exists, err)
	}
	return err
}

// counted is a mesh that counts the requests that come in.
type counted struct {
	meshage.Mesh
	surveys, finds, hashes atomic.Int64
}

func (c *counted) Handle(protocol string, h meshage.Handler) {
	if strings.Contains(protocol, "/survey/") {
		inner := h
		h = func(ctx context.Context, from string, s meshage.Stream) { c.surveys.Add(1); inner(ctx, from, s) }
	}
	c.Mesh.Handle(protocol, h)
}

func (c *counted) Respond(protocol string, r meshage.Responder) {
	counter := &c.finds
	if strings.Contains(protocol, "/hashes/") {
		counter = &c.hashes
	}
	c.Mesh.Respond(protocol, func(ctx context.Context, from string, request []byte) ([]byte, error) {
		counter.Add(1)
		return r(ctx, from, request)
	})
}

// member is a host of a test with files.
type member struct {
	*Registry
	t     *testing.T
	files string
	mesh  *counted
}

// sharing makes hosts that exchange files.
func sharing(t *testing.T, names ...string) (map[string]*member, *meshtest.Hub) {
	t.Helper()
	hub := meshtest.NewHub()
	t.Cleanup(hub.Close)
	out := map[string]*member{}
	for _, name := range names {
		log := slog.New(slog.DiscardHandler)
		files := t.TempDir()
		backing := func(path string) ([]string, error) {
			if strings.HasSuffix(path, "over") {
				return []string{strings.TrimSuffix(path, "over") + "base"}, nil
			}
			return nil, nil
		}
		s, err := iomeshage.New(iomeshage.Options{Root: files, Log: log, Backing: backing})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		vms := vm.NewManager(vm.Options{Base: t.TempDir(), Host: name, Engines: []vm.Engine{&vmtest.Engine{}}, Network: &vmtest.Network{},
			VLANName: func(string, int) string { return "" }, Parallel: 4, Log: log}, 0)
		t.Cleanup(vms.Close)
		m := &member{t: t, files: files, mesh: &counted{Mesh: hub.Join(name)}}
		m.Registry = NewRegistry(Options{Cluster: cluster.New(name), Facts: func() host.Facts { return host.Facts{CPUs: 2, MemTotal: 1 << 20, Limit: -1} }, VMs: vms, VLANs: numbers{}, Log: log,
			NetDrivers: func(context.Context, string) func(string) bool { return func(string) bool { return false } }, Files: files, Share: kinds{s},
			Fetch: func(ctx context.Context, path string) error {
				_, err := s.Fetch(ctx, path)
				for is, kind := range map[error]errs.Kind{iomeshage.ErrConflict: errs.Exists, iomeshage.ErrNotFound: errs.NotFound} {
					if errors.Is(err, is) {
						return errs.Wrap(kind, err)
					}
				}
				return err
			}})
		m.opts.Cluster.Join(m.mesh)
		s.Join(m.mesh)
		out[name] = m
	}
	return out, hub
}

// put makes a file whose time is so many seconds after some time.
func (m *member) put(name, content string, at int64) {
	m.t.Helper()
	p := filepath.Join(m.files, name)
	when := time.Unix(1700000000+at, 0)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o644), os.Chtimes(p, when, when)); err != nil {
		m.t.Fatal(err)
	}
}

// launch launches VMs with a configuration in the namespace lab.
func (m *member) launch(what string, edit func(*vm.Config)) error {
	m.t.Helper()
	ns, err := m.Get("lab")
	if err == nil {
		err = ns.Edit(func(c *vm.Config) error { edit(c); return nil })
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return ns.Launch(m.t.Context(), vm.KVM, what, "", nil)
}

// vms are the names of the VMs of a host.
func (m *member) vms() (names []string) {
	for _, v := range m.opts.VMs.List("lab") {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}

func disk(m *member, name string) func(*vm.Config) {
	return func(c *vm.Config) { c.Disks = []vm.DiskConfig{{Path: filepath.Join(m.files, name)}} }
}

// A launch is refused on a host that has something else under the name of a file
// that its VMs read, and done on the others.
func TestLaunchComparesFiles(t *testing.T) {
	for name, c := range map[string]struct {
		h, b, c string // content of the file d, "" for none, and after a comma its time
		edit    func(*vm.Config)
		refused string // the hosts that refuse
		hashed  bool
	}{
		"same":               {h: "one,0", b: "one,0", c: "one,0"},
		"here alone":         {h: "one,0"},
		"nowhere":            {},
		"other size":         {h: "one,0", b: "other,0", c: "one,0", refused: "b"},
		"other time":         {h: "one,0", b: "one,1", c: "one,0", hashed: true},
		"other content":      {h: "one,0", b: "two,1", c: "one,0", refused: "b", hashed: true},
		"both":               {h: "one,0", b: "two,1", c: "other,0", refused: "b c", hashed: true},
		"none at who orders": {b: "one,0", c: "other,0", refused: "c"},
		"it is to come":      {h: "one,0", b: "other,0", refused: "b c"},
		"written to":         {h: "one,0", b: "other,0", c: "more,0", edit: func(c *vm.Config) { c.Snapshot = false }},
		"read, never written": {h: "one,0", b: "other,0", c: "one,0", refused: "b", edit: func(c *vm.Config) {
			c.KernelPath, c.Disks, c.Snapshot = c.Disks[0].Path, nil, false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			hosts, _ := sharing(t, "h", "b", "c")
			for host, d := range map[string]string{"h": c.h, "b": c.b, "c": c.c} {
				if content, at, ok := strings.Cut(d, ","); ok {
					hosts[host].put("d", content, int64(at[0]-'0'))
				}
			}
			h := hosts["h"]
			err := h.launch("vm[1-2]", func(cfg *vm.Config) {
				disk(h, "d")(cfg)
				if c.edit != nil {
					c.edit(cfg)
				}
			})
			var refused []string
			for _, host := range []string{"b", "c"} {
				if len(hosts[host].vms()) != 1 {
					refused = append(refused, host)
				}
			}
			if got := strings.Join(refused, " "); got != c.refused || (err != nil) != (c.refused != "") {
				t.Errorf("refused by %q, want %q: %v", got, c.refused, err)
			}
			if err != nil && (!errors.Is(err, errs.Exists) && len(refused) == 1 || strings.Count(err.Error(), "d: different content under one name: ") != len(refused)) {
				t.Errorf("got %v", err)
			}
			if read := h.mesh.hashes.Load() > 0 && c.c != ""; read != c.hashed {
				t.Errorf("files were read: %v", read)
			}
		})
	}
}

// What a file stands on is compared, and what lies in a directory.
func TestLaunchComparesDeep(t *testing.T) {
	hosts, _ := sharing(t, "h", "b")
	h, b := hosts["h"], hosts["b"]
	for _, m := range hosts {
		m.put("over", "over", 0)
		m.put("root/etc/x", "x", 0)
	}
	h.put("base", "base 1", 0)
	b.put("base", "base two", 0)
	if err := h.launch("a", disk(h, "over")); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "base: different content") {
		t.Errorf("got %v", err)
	}
	b.put("base", "base 1", 7)
	if err := h.launch("a", disk(h, "over")); err != nil {
		t.Error(err)
	}
	root := func(c *vm.Config) { c.Disks, c.FilesystemPath = nil, filepath.Join(h.files, "root") }
	if err := h.launch("b", root); err != nil {
		t.Error(err)
	}
	b.put("root/etc/x", "x", 9)
	if err := h.launch("c", root); err != nil {
		t.Errorf("another time: %v", err)
	}
	for _, change := range []func(){
		func() { b.put("root/etc/x", "y", 9) },
		func() { b.put("root/etc/x", "x", 0); b.put("root/etc/more", "", 0) },
		func() { b.put("root/etc/x", "x", 0); h.put("root/etc/less", "", 0) },
		func() { _ = os.Symlink("x", filepath.Join(b.files, "root/etc/less")) },
	} {
		_ = os.Remove(filepath.Join(b.files, "root/etc/more"))
		change()
		if err := h.launch("d", root); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "root/etc/") {
			t.Errorf("got %v", err)
		}
	}
}

// However many VMs and groups a launch has, a host is asked once what it has,
// and once of each file that looks different; the answer is remembered.
func TestLaunchAsksOnce(t *testing.T) {
	hosts, _ := sharing(t, "h", "b")
	h, b := hosts["h"], hosts["b"]
	h.put("d", "one", 0)
	b.put("d", "one", 1)
	ns, err := h.Get("lab")
	if err != nil {
		t.Fatal(err)
	}
	ns.SetQueueing(true)
	for range 50 {
		if err := h.launch("2", disk(h, "d")); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.LaunchQueue(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := b.vms(); len(got) != 100 {
		t.Errorf("%d VMs", len(got))
	}
	ns.SetQueueing(false)
	if err := h.launch("3", disk(h, "d")); err != nil {
		t.Fatal(err)
	}
	if s, f, a := b.mesh.surveys.Load(), h.mesh.finds.Load(), h.mesh.hashes.Load(); s != 2 || f != 1 || a != 1 {
		t.Errorf("two launches: %d surveys, %d questions for a file, %d for hashes", s, f, a)
	}
	names := b.vms()
	if slices.Sort(names); len(slices.Compact(names)) != 103 {
		t.Errorf("VMs of one name: %q", names)
	}
}

// unreachable is what a host that is lost is to Compare.
type unreachable struct{ Share }

func (unreachable) Compare(context.Context, string, string, iomeshage.State) error {
	return errs.New(errs.Unreachable, "lost")
}

// A host whose file cannot be compared does not stop a launch, and one that is
// alone compares nothing.
func TestLaunchBesideLostFiles(t *testing.T) {
	hosts, hub := sharing(t, "h", "b", "c")
	h, b := hosts["h"], hosts["b"]
	b.opts.Share = unreachable{b.opts.Share}
	h.put("d", "one", 0)
	b.put("d", "one", 1)
	hub.Kill("c")
	ns, err := h.Get("lab")
	if err == nil {
		err = ns.DelHosts("c")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := h.launch("a", disk(h, "d")); err != nil || len(b.vms()) != 1 {
		t.Errorf("%v, %q", err, b.vms())
	}
	if got := h.sharedNames([]string{"h"}, []*Group{{Config: ns.Config()}}); got != nil {
		t.Errorf("alone: %q", got)
	}
	if got := h.sharedNames([]string{"b"}, []*Group{{Config: ns.Config()}, {Config: ns.Config()}}); !slices.Equal(got, []string{"d"}) {
		t.Errorf("names: %q", got)
	}
}

// What VMs write to is each host's own.
func TestWritten(t *testing.T) {
	c := vm.NewConfig()
	c.Disks, c.FilesystemPath, c.KernelPath = []vm.DiskConfig{{Path: "d"}}, "f", "k"
	c.VolumePaths = map[string]string{"/v": "v"}
	got := func() map[string]bool {
		out := map[string]bool{}
		for _, p := range []string{"d", "f", "k", "v"} {
			out[p] = written(c, p)
		}
		return out
	}
	if want := map[string]bool{"d": false, "f": false, "k": false, "v": true}; !maps.Equal(got(), want) {
		t.Errorf("got %v", got())
	}
	c.Snapshot = false
	if want := map[string]bool{"d": true, "f": true, "k": false, "v": true}; !maps.Equal(got(), want) {
		t.Errorf("got %v", got())
	}
}
