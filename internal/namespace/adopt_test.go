package namespace

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"minimega/internal/cluster"
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

func TestAdoptBroken(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bad.json": "{", "good.json": `{"Configs": {"x": {"Memory": 5}, "y": null}}`, "no name!.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := registry(t, dir)
	if err := r.Adopt(); err == nil || !strings.Contains(err.Error(), "bad.json") {
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
