package vm_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/network"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

// processes is an engine whose machines are processes that wait to be ended.
type processes struct {
	silent *atomic.Bool // they do not answer who adopts them
}

func (processes) Type() vm.Type                           { return vm.KVM }
func (processes) Check(context.Context, *vm.Config) error { return nil }

func (processes) Launch(_ context.Context, s *vm.Spec) (vm.Machine, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := host.StartProc(host.ProcSpec{Path: exe, Args: []string{"-test.run=^TestMachine$", "--", "-dir", s.Dir}, Env: append(os.Environ(), "VM_TEST_MACHINE=1")})
	if err != nil {
		return nil, err
	}
	return &process{p}, nil
}

func (processes) Instance(args []string) string {
	if i := slices.Index(args, "-dir"); i > 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func (e processes) Adopt(_ context.Context, s *vm.Spec, pid int) (vm.Machine, error) {
	if e.silent != nil && e.silent.Load() {
		return nil, errs.New(errs.Unreachable, "it does not answer")
	}
	p, err := host.AdoptProc(pid)
	if err != nil {
		return nil, err
	}
	return &process{p}, nil
}

func (processes) Remains(dir string) error {
	words, err := os.ReadFile(filepath.Join(dir, "words"))
	if err != nil {
		return nil
	}
	return errs.New(errs.State, "%s", words)
}

// process is a machine that runs once it was adopted.
type process struct{ *host.Proc }

func (p *process) Start(context.Context) error { return nil }
func (p *process) Stop(context.Context) error  { return nil }
func (p *process) Err() error                  { return nil }
func (p *process) Status(context.Context) (vm.State, error) {
	return vm.Running, nil
}

// TestMachine is the process of a machine.
func TestMachine(t *testing.T) {
	if os.Getenv("VM_TEST_MACHINE") == "" {
		return
	}
	time.Sleep(time.Minute)
}

// heir is a manager over a base directory, with an engine of processes.
func heir(t *testing.T, base string, e vm.Engine) *vm.Manager {
	t.Helper()
	return heirOf(base, e, &vmtest.Network{})
}

func heirOf(base string, e vm.Engine, n *vmtest.Network) *vm.Manager {
	return vm.NewManager(vm.Options{Base: base, Host: "h", Engines: []vm.Engine{e}, Network: n, Parallel: 2,
		VLANName: func(_ string, v int) string { return strconv.Itoa(v) }, Log: slog.New(slog.DiscardHandler)}, 0)
}

// estate is what an earlier manager left: VMs a, b, … that were started, by a
// process that let go of them.
func estate(t *testing.T, names ...string) (base string, dirs map[string]string) {
	t.Helper()
	base = t.TempDir()
	m := heir(t, base, processes{})
	var reqs []vm.Request
	for _, name := range names {
		reqs = append(reqs, vm.Request{Namespace: "ns", Name: name, Type: vm.KVM, Config: withNets(5)})
	}
	if err := m.Launch(t.Context(), reqs, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), "ns", "all"); err != nil {
		t.Fatal(err)
	}
	dirs = map[string]string{}
	for _, v := range m.List("ns") {
		v.SetTag("k", v.Name)
		dirs[v.Name] = v.Dir()
	}
	m.Close()
	t.Cleanup(func() {
		for _, dir := range dirs {
			endIn(t, dir)
		}
	})
	return base, dirs
}

// endIn ends the process of a directory, which is a child of ours, and reports
// whether there was one.
func endIn(t *testing.T, dir string) bool {
	t.Helper()
	list, err := host.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if (processes{}).Instance(p.Args) == dir {
			_ = syscall.Kill(p.Pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(p.Pid, nil, 0, nil)
			return true
		}
	}
	return false
}

func TestAdopt(t *testing.T) {
	base, dirs := estate(t, "runs", "quit", "failed", "half", "again")
	endIn(t, dirs["quit"])
	endIn(t, dirs["failed"])
	for file, text := range map[string]string{
		dirs["failed"] + "/words": "out of cheese", dirs["again"] + "/state": "QUIT", base + "/.gone-77/state": "QUIT",
		base + "/77/name": "torn", dirs["runs"] + "/.state.123": "",
	} {
		_ = os.Mkdir(filepath.Dir(file), 0o700)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unmake(dirs["half"]); err != nil {
		t.Fatal(err)
	}
	m := heir(t, base, processes{})
	defer m.Close()
	a, err := m.Adopt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lost []string
	for _, l := range a.Lost {
		lost = append(lost, l.Name)
	}
	if a.Running != 1 || a.Ended != 3 || strings.Join(lost, " ") != "half again torn" {
		t.Errorf("%+v", a)
	}
	for name, want := range map[string]vm.State{"runs": vm.Running, "quit": vm.Quit, "failed": vm.Error, "again": vm.Quit} {
		v, err := m.Find("ns", name)
		if err != nil {
			t.Error(err)
			continue
		}
		c := v.Config()
		if v.State() != want || v.Dir() != dirs[name] || v.Tag("k") != name || c.Networks[0].VLAN != 5 || c.Networks[0].MAC == "" {
			t.Errorf("%s is %v with %+v", name, v.State(), c)
		}
		if link, err := os.Readlink(filepath.Join(base, "namespaces", "ns", v.UUID)); err != nil || link != v.Dir() {
			t.Errorf("%s: link %q, %v", name, link, err)
		}
	}
	checkAdopted(t, m, base, dirs)
}

// checkAdopted looks at what TestAdopt leaves besides the VMs.
func checkAdopted(t *testing.T, m *vm.Manager, base string, dirs map[string]string) {
	t.Helper()
	for _, gone := range []string{dirs["half"], base + "/77", base + "/.gone-77", dirs["runs"] + "/.state.123"} {
		if _, err := os.Lstat(gone); err == nil {
			t.Errorf("%s is still there", gone)
		}
	}
	links, _ := filepath.Glob(filepath.Join(base, "namespaces", "*", "*"))
	if len(links) != 4 {
		t.Errorf("links: %v", links)
	}
	w, err := m.Why(t.Context(), "ns", "half")
	if err != nil || len(w.Findings) != 1 || !strings.Contains(w.Findings[0].Text, "being launched") {
		t.Errorf("why: %+v, %v", w, err)
	}
	if w, err = m.Why(t.Context(), "ns", "failed"); err != nil || w.Failure == nil || !strings.Contains(w.Failure.Text, "out of cheese") {
		t.Errorf("why: %+v, %v", w, err)
	}
	if ports := m.Ports(); len(ports) != 4 {
		t.Errorf("ports: %v", ports)
	}
	if err := m.Launch(t.Context(), []vm.Request{{Namespace: "ns", Name: "new", Type: vm.KVM, Config: withNets()}}, nil); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Find("ns", "new"); err != nil || v.ID != 78 {
		t.Errorf("a new VM has the ID %v, %v", v, err)
	} else if err := m.Kill(t.Context(), "ns", "new"); err != nil {
		t.Error(err)
	}
}

// A machine that does not answer is kept, and taken over once it does; until
// then it can be killed and flushed.
func TestAdoptSilent(t *testing.T) {
	base, dirs := estate(t, "a", "b")
	var still atomic.Bool
	still.Store(true)
	net := &vmtest.Network{}
	if _, err := net.Create(t.Context(), make([]network.PortSpec, len(dirs))); err != nil { // the taps of both
		t.Fatal(err)
	}
	m := heirOf(base, processes{silent: &still}, net)
	defer m.Close()
	a, err := m.Adopt(t.Context())
	if !errors.Is(err, errs.Unreachable) || a.Running != 2 || len(a.Lost) != 0 {
		t.Errorf("adopt: %+v, %v", a, err)
	}
	for _, name := range []string{"a", "b"} {
		v, err := m.Find("ns", name)
		if err != nil || v.State() != vm.Running || !strings.Contains(v.Tag("error"), "does not answer") || !runsIn(t, dirs[name]) {
			t.Fatalf("%s: %v, %v", name, v, err)
		}
	}
	for what, err := range map[string]error{
		"stop":        m.Stop(t.Context(), "ns", "a"),
		"hotplug":     m.HotplugAdd(t.Context(), "ns", "a", "x", "", ""),
		"add network": m.AddNets(t.Context(), "ns", "a", []vm.NetConfig{{VLAN: 6}}),
		"save":        m.Save(t.Context(), "ns", "a", vm.SaveFiles{}),
	} {
		if !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := m.Kill(t.Context(), "ns", "b"); err != nil {
		t.Error(err)
	}
	if err := m.Flush(t.Context(), "ns", "b"); err != nil {
		t.Error(err)
	}
	if _, err := m.Find("ns", "b"); err == nil {
		t.Error("b is still there")
	}
	still.Store(false)
	v, err := m.Find("ns", "a")
	if err != nil {
		t.Fatal(err)
	}
	for v.Tag("error") != "" && t.Context().Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	if err := m.Stop(t.Context(), "ns", "a"); err != nil || v.State() != vm.Paused || v.Tag("k") != "a" {
		t.Errorf("stop: %v, %v", v.State(), err)
	}
	if err := m.Kill(t.Context(), "ns", "a"); err != nil || v.State() != vm.Quit {
		t.Errorf("kill: %v, %v", v.State(), err)
	}
}

// runsIn reports whether a directory has a process.
func runsIn(t *testing.T, dir string) bool {
	t.Helper()
	list, err := host.Processes()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(p host.Process) bool { return (processes{}).Instance(p.Args) == dir })
}

func TestDiscard(t *testing.T) {
	base, dirs := estate(t, "a", "b")
	m := heir(t, base, processes{})
	defer m.Close()
	removed, err := m.Discard(t.Context())
	if err != nil || len(removed) != 2 || !strings.Contains(removed[0], "VM a") || !strings.Contains(removed[1], dirs["b"]) {
		t.Errorf("%q, %v", removed, err)
	}
	if entries, err := os.ReadDir(base); err != nil || len(entries) != 1 { // namespaces
		t.Errorf("left: %v, %v", entries, err)
	}
	for _, p := range must(host.Processes()) {
		if home := (processes{}).Instance(p.Args); home != "" && filepath.Dir(home) == base {
			t.Errorf("process %d runs on", p.Pid)
		}
	}
}

func must(list []host.Process, err error) []host.Process {
	if err != nil {
		panic(err)
	}
	return list
}

// unmake leaves what a daemon does that dies during a launch: the records say
// nothing of its end, or only the beginning of that.
func unmake(dir string) error {
	path := filepath.Join(dir, "vm.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	at := bytes.Index(text, []byte(`"Made":true`))
	if at < 0 {
		return errors.New("the launch came to no end")
	}
	return os.WriteFile(path, text[:at+len(`"Made":true`)], 0o600)
}

// Whatever stands in vm.json, nothing outside the directory is touched.
func TestAdoptHostile(t *testing.T) {
	for _, text := range []string{"", "{}", "[", `{"ID": 6, "Name": "x", "Namespace": "n", "UUID": "u", "Type": "kvm", "Made": true, "Config": {}}`,
		`{"ID": 5, "Name": "x", "Namespace": "../..", "UUID": "u", "Type": "kvm", "Made": true, "Config": {}}`,
		`{"ID": 5, "Name": "x", "Namespace": "n", "UUID": "..", "Type": "kvm", "Made": true, "Config": {}}`,
		`{"ID": 5, "Name": "x", "Namespace": "n", "UUID": "u", "Type": "toaster", "Made": true, "Config": {}}`,
		`{"ID": 5, "Name": "x", "Namespace": "n", "UUID": "u", "Type": "kvm", "Made": true}`} {
		base := t.TempDir()
		dir := filepath.Join(base, "5")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{"vm.json": text, "state": "QUIT"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := heir(t, base, processes{})
		a, err := m.Adopt(t.Context())
		if err != nil || len(a.Lost) != 1 || len(m.List("")) != 0 {
			t.Errorf("%q: %+v, %v", text, a, err)
		}
		m.Close()
	}
}

// leaving is an engine whose machines end when somebody wants to adopt them,
// and leave something besides.
type leaving struct {
	processes
	t       *testing.T
	unclean map[string]bool // by directory
}

func (e leaving) Adopt(_ context.Context, s *vm.Spec, _ int) (vm.Machine, error) {
	e.unclean[s.Dir] = endIn(e.t, s.Dir)
	return nil, errs.New(errs.NotFound, "it is not there")
}

func (e leaving) Clean(_ context.Context, dir string) error {
	delete(e.unclean, dir)
	return nil
}

// What ends while it is being taken over has quit, and leaves nothing.
func TestAdoptLeaving(t *testing.T) {
	base, _ := estate(t, "a")
	e := leaving{t: t, unclean: map[string]bool{}}
	m := heir(t, base, e)
	defer m.Close()
	if _, err := m.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := m.List("ns")[0].State(); s != vm.Quit || len(e.unclean) > 0 {
		t.Errorf("%v, not cleaned: %v", s, e.unclean)
	}
}

// A VM whose tap has gone is flushed all the same, and has a new one when it is
// started again: nothing is connected to what has the old name now.
func TestLosePorts(t *testing.T) {
	base, _ := estate(t, "a", "b")
	n := &vmtest.Network{}
	m := heirOf(base, processes{}, n)
	defer m.Close()
	ctx := t.Context()
	if _, err := m.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	m.LosePorts(n.Has)
	if ports := m.Ports(); len(ports) != 0 {
		t.Errorf("ports: %v", ports)
	}
	for _, step := range []struct {
		do    func(context.Context, string, string) error
		who   string
		ports int
	}{{m.Kill, "all", 0}, {m.Start, "a", 1}, {m.Kill, "a", 1}, {m.Flush, "all", 0}} {
		if err := step.do(ctx, "ns", step.who); err != nil {
			t.Fatal(err)
		}
		if n.Len() != step.ports || len(m.Ports()) != step.ports {
			t.Errorf("the network has %d ports, the VMs %v, not %d", n.Len(), m.Ports(), step.ports)
		}
	}
	if left := m.List(""); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
