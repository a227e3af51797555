package namespace

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"minimega/internal/cluster"
	"minimega/internal/network"
	"minimega/internal/vm"
)

func registry(t *testing.T, dir string) *Registry {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	vms := vm.NewManager(vm.Options{Base: t.TempDir(), Log: log}, 0)
	t.Cleanup(vms.Close)
	return NewRegistry(Options{Cluster: cluster.New("h"), VMs: vms, Dir: dir, Log: log})
}

func TestAdopt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "configs")
	first := registry(t, dir)
	for _, name := range []string{"a", "b"} {
		ns, err := first.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := ns.Edit(func(c *vm.Config) error { c.Memory = 77; c.Append = []string{name}; return nil }); err != nil {
			t.Fatal(err)
		}
		ns.Save("x")
		ns.Save("y")
	}
	second := registry(t, dir)
	if err := second.Adopt(); err != nil {
		t.Fatal(err)
	}
	ns, err := second.Get("b")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ns.Saved(), " "); got != "x y" {
		t.Errorf("stored: %q", got)
	}
	if err := ns.Restore("y"); err != nil || ns.Config().Memory != 77 || ns.Config().Append[0] != "b" {
		t.Errorf("%+v, %v", ns.Config(), err)
	}
	if err := second.Clear(t.Context(), "all"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the directory is left")
	}
}

// The queue outlives its daemon, in its order, until it is launched or flushed.
func TestAdoptQueue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "configs")
	start := func() *Namespace {
		r := keptRegistry(t, dir)
		if err := r.Adopt(); err != nil {
			t.Error(err)
		}
		ns, err := r.Get("lab")
		if err != nil {
			t.Fatal(err)
		}
		return ns
	}
	launch := func(ns *Namespace, what string) {
		t.Helper()
		if err := ns.Launch(t.Context(), vm.KVM, what, "", nil); err != nil {
			t.Error(err)
		}
	}
	queue := func(ns *Namespace) string {
		var all []string
		for _, g := range ns.Queue() {
			all = append(all, fmt.Sprintf("%v %q %d", g.Type, strings.Join(g.Names, ","), g.Config.Memory))
		}
		return strings.Join(all, "; ")
	}
	ns := start()
	ns.SetQueueing(true)
	launch(ns, "a[1-2]")
	if err := ns.Edit(func(c *vm.Config) error {
		c.Memory = 77
		c.Networks = []vm.NetConfig{{VLAN: 101, Alias: "x"}}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	launch(ns, "3")
	if err := ns.Launch(t.Context(), vm.KVM, "a2", "", nil); err == nil {
		t.Error("a2 is queued twice")
	}
	ns.SetCapture(Capture{Filter: "tcp"})
	ns = start()
	want := `kvm "a1,a2" 2048; kvm ",," 77`
	if got := queue(ns); got != want {
		t.Errorf("queue %s, want %s", got, want)
	}
	if !ns.Queueing() {
		t.Error("launches wait no more")
	}
	if got := ns.Config().Memory; got != 77 || ns.Capture().Filter != "tcp" {
		t.Errorf("memory of VMs to come %d, captures %v", got, ns.Capture())
	}
	launch(ns, "b")
	ns.registry.Renumber([]network.Renumbering{{Alias: "lab//x", Old: 101, New: 200}})
	ns = start()
	want += `; kvm "b" 77`
	if got := queue(ns); got != want {
		t.Errorf("queue %s, want %s", got, want)
	}
	if got := ns.Queue()[1].Config.Networks[0].VLAN; got != 200 || ns.Config().Networks[0].VLAN != 200 {
		t.Errorf("VLANs %d, %d", got, ns.Config().Networks[0].VLAN)
	}
	// Launched is out of it, also when a host refuses.
	if err := ns.LaunchQueue(t.Context(), nil); err != nil {
		t.Error(err)
	}
	ns = start()
	if got := queue(ns); got != "" {
		t.Errorf("launched, and still waiting: %s", got)
	}
	launch(ns, "c")
	launch(ns, "7")
	if lines, err := keptRegistry(t, dir).Discard(); err != nil || strings.Join(lines, "; ") != "queueing of namespace lab; present configuration of namespace lab; queued c of namespace lab; queued 7 VMs without names of namespace lab" {
		t.Errorf("%q, %v", lines, err)
	}
	if got := queue(start()); got != "" {
		t.Errorf("discarded, and still waiting: %s", got)
	}
	if got := start(); got.Config().Memory != 2048 || got.Capture() != (Capture{}) || got.Queueing() {
		t.Errorf("discarded, and still there: %+v", got.Config())
	}
	ns.SetQueueing(true)
	launch(ns, "d")
	ns.FlushQueue()
	if got := queue(start()); got != "" {
		t.Errorf("flushed, and still waiting: %s", got)
	}
	launch(ns, "e")
	if err := ns.registry.Clear(t.Context(), "lab"); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the directory is left")
	}
}

func TestAdoptBroken(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bad.json": "{", "good.json": `{"Configs": {"x": {"Memory": 5}, "y": null}}`, "no name!.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "odd.queue"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{`{"Type": 1, "Names": ["../x"], "Config": {}}`, `{"Type": 9, "Count": 1, "Config": {}}`, `{"Type": 1, "Count": -1, "Config": {}}`, `{"Type": 1, "Count": 1}`} {
		if err := os.WriteFile(filepath.Join(dir, "odd.queue", fmt.Sprint(i, ".json")), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := registry(t, dir)
	if err := r.Adopt(); err == nil || !strings.Contains(err.Error(), "bad.json") || strings.Count(err.Error(), "queued VMs in ") != 4 {
		t.Errorf("adopt: %v", err)
	}
	ns, err := r.Get("good")
	if err != nil || strings.Join(ns.Saved(), " ") != "x" {
		t.Errorf("stored: %v, %v", ns.Saved(), err)
	}
	text := `{"Configs": {"x": {}, "a": {}}, "Hosts": ["h", "i"], "Load": "memcommit", "Limits": {"VMs": 5}, "Bridges": {"br": {}}}`
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "all.json"), []byte(text), 0o600), r.owed.add(map[string]debt{"gone": {Hosts: []string{"c", "d"}}})); err != nil {
		t.Fatal(err)
	}
	want := []string{"note that c,d has yet to be told of the end of namespace gone", "stored configuration a of namespace all",
		"stored configuration x of namespace all", "hosts h,i of namespace all", "load metric memcommit of namespace all",
		"limits (cpu none, memory none, vms 5) of namespace all", "connection of bridge br of namespace all",
		"unreadable file of namespace bad", "stored configuration x of namespace good", "stored configuration y of namespace good"}
	want = append(want, slices.Repeat([]string{"queued VMs that make no sense of namespace odd"}, 4)...)
	if lines, err := r.Discard(); err != nil || !slices.Equal(lines, want) {
		t.Errorf("%q, %v", lines, err)
	}
	if lines, err := r.Discard(); err != nil || len(lines) > 0 {
		t.Errorf("again: %q, %v", lines, err)
	}
	if names, err := r.kept(); len(names) != 0 || err != nil {
		t.Errorf("left: %v, %v", names, err)
	}
}
