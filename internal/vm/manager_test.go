package vm_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a manager over an engine and a network in memory.
type world struct {
	*vm.Manager
	engine *vmtest.Engine
	net    *vmtest.Network
	base   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{engine: &vmtest.Engine{}, net: &vmtest.Network{}, base: t.TempDir()}
	w.Manager = vm.NewManager(vm.Options{
		Base: w.base, Host: "h", Engines: []vm.Engine{w.engine}, Network: w.net, Parallel: 4,
		VLANName: func(_ string, v int) string { return fmt.Sprintf("lan (%d)", v) },
		Log:      slog.New(slog.DiscardHandler)}, 0)
	t.Cleanup(w.Close)
	return w
}

func (w *world) launch(t *testing.T, c *vm.Config, names ...string) error {
	t.Helper()
	var reqs []vm.Request
	for _, n := range names {
		reqs = append(reqs, vm.Request{Namespace: "ns", Name: n, Type: vm.KVM, Config: c})
	}
	return w.Launch(context.Background(), reqs, nil)
}

func (w *world) states(t *testing.T) string {
	t.Helper()
	var s []string
	for _, v := range w.List("ns") {
		s = append(s, v.Name+"="+v.State().String())
	}
	return strings.Join(s, " ")
}

func withNets(vlans ...int) *vm.Config {
	c := vm.NewConfig()
	for _, v := range vlans {
		c.Networks = append(c.Networks, vm.NetConfig{VLAN: v, Bridge: vm.DefaultBridge, Driver: vm.DefaultDriver})
	}
	return c
}

func TestLife(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if err := w.launch(t, withNets(101, 102), "a", "b"); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, "a=BUILDING b=BUILDING"},
		{func() error { return w.Start(ctx, "ns", "all") }, "a=RUNNING b=RUNNING"},
		{func() error { return w.Stop(ctx, "ns", "b") }, "a=RUNNING b=PAUSED"},
		{func() error { return w.Start(ctx, "ns", "b") }, "a=RUNNING b=RUNNING"},
		{func() error { return w.Kill(ctx, "ns", "a") }, "a=QUIT b=RUNNING"},
		{func() error { return w.Start(ctx, "ns", "all") }, "a=QUIT b=RUNNING"},
		{func() error { return w.Start(ctx, "ns", "a") }, "a=RUNNING b=RUNNING"},
		{func() error { return w.Kill(ctx, "ns", "a,b") }, "a=QUIT b=QUIT"},
		{func() error { return w.Flush(ctx, "ns", "all") }, ""},
	}
	for i, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got := w.states(t); got != s.want {
			t.Fatalf("step %d: %q, want %q", i, got, s.want)
		}
	}
	if n := w.net.Len(); n != 0 {
		t.Errorf("%d ports left", n)
	}
	left, _ := filepath.Glob(filepath.Join(w.base, "*"))
	links, _ := filepath.Glob(filepath.Join(w.base, "namespaces", "*", "*"))
	if len(left) != 1 || filepath.Base(left[0]) != "namespaces" || len(links) > 0 {
		t.Errorf("left: %v %v", left, links)
	}
}

func TestInstanceDirectory(t *testing.T) {
	w := newWorld(t)
	c := withNets(101)
	c.Tags["role"] = "web server"
	if err := w.launch(t, c, "a"); err != nil {
		t.Fatal(err)
	}
	v := w.List("ns")[0]
	if text, err := os.ReadFile(filepath.Join(v.Dir(), "state")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("state before it changed: %q, %v", text, err)
	}
	if err := w.Start(t.Context(), "ns", "a"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"name": "a", "state": "RUNNING", "taps": "mega_tap0"}
	for f, content := range want {
		if got, err := os.ReadFile(filepath.Join(v.Dir(), f)); err != nil || string(got) != content {
			t.Errorf("%s: %q, %v, want %q", f, got, err, content)
		}
	}
	config, err := os.ReadFile(filepath.Join(v.Dir(), "config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"vm config uuid " + v.UUID, `vm config tags role "web server"`, "vm config networks 101,"} {
		if !strings.Contains(string(config), line) {
			t.Errorf("config lacks %q:\n%s", line, config)
		}
	}
	if got, err := os.Readlink(filepath.Join(w.base, "namespaces", "ns", v.UUID)); err != nil || got != v.Dir() {
		t.Errorf("link by UUID: %q, %v", got, err)
	}
	if info, err := os.Stat(v.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("instance directory: %v, %v", info.Mode(), err)
	}
}

// A launch that fails in any step leaves nothing but the VM's entry, and its
// error says which VM and which step.
func TestFailedLaunchLeavesNothing(t *testing.T) {
	for name, breakIt := range map[string]func(*world){
		"start kvm": func(w *world) {
			w.engine.Fail = func(*vm.Spec) error { return errors.New("no such luck") }
		},
		"make taps": func(w *world) { w.net.FailAt = 102 },
		"make instance directory": func(w *world) {
			if err := os.WriteFile(filepath.Join(w.base, "0"), nil, 0o600); err != nil {
				panic(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			breakIt(w)
			err := w.launch(t, withNets(101, 102), "a")
			if err == nil || !strings.Contains(err.Error(), "VM a: "+name+": ") {
				t.Fatalf("error: %v", err)
			}
			if got := w.states(t); got != "a=ERROR" {
				t.Errorf("states: %q", got)
			}
			v := w.List("ns")[0]
			if v.Tag("error") == "" {
				t.Error("the tag `error` is not set")
			}
			if n := w.net.Len(); n != 0 {
				t.Errorf("%d ports left", n)
			}
			if info, err := os.Stat(v.Dir()); err == nil && info.IsDir() {
				t.Error("instance directory left")
			}
			if err := w.Flush(context.Background(), "ns", "all"); err != nil {
				t.Error(err)
			}
			if got := w.states(t); got != "" {
				t.Errorf("after flush: %q", got)
			}
		})
	}
}

// One that fails does not keep the others from being launched, and can be
// started once the reason is gone.
func TestOneOfManyFails(t *testing.T) {
	w := newWorld(t)
	w.engine.Fail = func(s *vm.Spec) error {
		if s.Name == "b" {
			return errors.New("no such luck")
		}
		return nil
	}
	err := w.launch(t, withNets(101), "a", "b", "c")
	if err == nil || strings.Contains(err.Error(), "VM a") || !strings.Contains(err.Error(), "VM b") {
		t.Fatalf("error: %v", err)
	}
	if got := w.states(t); got != "a=BUILDING b=ERROR c=BUILDING" {
		t.Fatal(got)
	}
	w.engine.Fail = nil
	if err := w.Start(context.Background(), "ns", "b"); err != nil {
		t.Fatal(err)
	}
	if got := w.states(t); got != "a=BUILDING b=RUNNING c=BUILDING" {
		t.Fatal(got)
	}
	if tag := w.List("ns")[1].Tag("error"); tag != "" {
		t.Errorf("tag error still %q", tag)
	}
	if n := w.net.Len(); n != 3 {
		t.Errorf("%d ports, want 3", n)
	}
}

func TestEndByItself(t *testing.T) {
	w := newWorld(t)
	if err := w.launch(t, vm.NewConfig(), "ok", "bad"); err != nil {
		t.Fatal(err)
	}
	for name, why := range map[string]error{"ok": nil, "bad": errors.New("qemu: out of luck")} {
		if err := w.engine.Machine(name).End(why); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(time.Minute)
	for w.states(t) != "ok=QUIT bad=ERROR" {
		if time.Now().After(deadline) {
			t.Fatal(w.states(t))
		}
		time.Sleep(time.Millisecond)
	}
	if got := w.List("ns")[1].Tag("error"); got != "qemu: out of luck" {
		t.Errorf("tag error: %q", got)
	}
}

func TestTaken(t *testing.T) {
	w := newWorld(t)
	disk := vm.NewConfig()
	disk.Disks = []vm.DiskConfig{{Path: "/images/a"}}
	if err := w.launch(t, disk, "a"); err != nil {
		t.Fatal(err)
	}
	writer := disk.Clone()
	writer.Snapshot = false
	uuid := vm.NewConfig()
	uuid.UUID = strings.ToUpper(w.List("ns")[0].UUID)
	for _, c := range []struct {
		config *vm.Config
		name   string
		want   string
		kind   errs.Kind
	}{
		{vm.NewConfig(), "a", "vm already exists with name `a`", errs.Exists},
		{uuid, "b", "vm already exists with UUID", errs.Exists},
		{writer, "b", "disk conflict with vm a: /images/a", errs.State},
	} {
		err := w.launch(t, c.config, c.name)
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.kind) {
			t.Errorf("%q: %v, want %q", c.name, err, c.want)
		}
	}
	if got := w.states(t); got != "a=BUILDING" {
		t.Errorf("something was made: %q", got)
	}
	if err := w.launch(t, disk, "b"); err != nil {
		t.Errorf("two snapshots of one disk: %v", err)
	}
}

func TestTargets(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if err := w.launch(t, vm.NewConfig(), "a1", "a2", "a3"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ target, err, states string }{
		{"nobody", "vm not found: nobody", "a1=BUILDING a2=BUILDING a3=BUILDING"},
		{"a[1-2],nobody", "", "a1=RUNNING a2=RUNNING a3=BUILDING"},
		{"a1", "vm is already running", "a1=RUNNING a2=RUNNING a3=BUILDING"},
		{"2", "", "a1=RUNNING a2=RUNNING a3=RUNNING"},
		{"a[", "unterminated '['", "a1=RUNNING a2=RUNNING a3=RUNNING"},
	} {
		err := w.Start(ctx, "ns", c.target)
		if got := fmt.Sprint(err); c.err == "" && err != nil || c.err != "" && got != c.err {
			t.Errorf("start %s: %v, want %q", c.target, err, c.err)
		}
		if got := w.states(t); got != c.states {
			t.Errorf("start %s: %q, want %q", c.target, got, c.states)
		}
	}
	if err := w.Kill(ctx, "ns", "all"); err != nil {
		t.Fatal(err)
	}
	if err := w.Stop(ctx, "ns", "a1"); err == nil || err.Error() != "VM state error: a1" {
		t.Errorf("stop of one that quit: %v", err)
	}
}

func TestNetworkMoves(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if err := w.launch(t, withNets(101), "a"); err != nil {
		t.Fatal(err)
	}
	if err := w.ConnectNet(ctx, "ns", "a", 0, 200, "dmz", ""); err != nil {
		t.Fatal(err)
	}
	if p, _ := w.net.Port("mega_tap0"); p.VLAN != 200 || p.Bridge != vm.DefaultBridge {
		t.Errorf("port: %+v", p)
	}
	if err := w.DisconnectNet(ctx, "ns", "a", 0); err != nil {
		t.Fatal(err)
	}
	if row := w.Info("ns")[0].Row(); row[8] != "[disconnected]" || row[9] != "[]" {
		t.Errorf("vlan %q bridge %q", row[8], row[9])
	}
	if err := w.ConnectNet(ctx, "ns", "a", 3, 200, "", ""); err == nil || !strings.Contains(err.Error(), "no network 3, VM only has 1 networks") {
		t.Errorf("index: %v", err)
	}
}

func TestInfoColumns(t *testing.T) {
	w := newWorld(t)
	c := withNets(101)
	c.Networks[0].Alias = "lan"
	if err := w.launch(t, c, "a"); err != nil {
		t.Fatal(err)
	}
	in := w.Info("ns")[0]
	for _, typ := range []vm.Type{vm.KVM, vm.Container, vm.Android} {
		in.Type = typ
		if got := len(in.Row()); got != len(vm.InfoColumns) {
			t.Errorf("%s: %d cells for %d columns", typ, got, len(vm.InfoColumns))
		}
	}
	if got := len(in.SummaryRow()); got != len(vm.SummaryColumns) {
		t.Errorf("summary: %d cells for %d columns", got, len(vm.SummaryColumns))
	}
	if len(vm.InfoColumns) != 44 {
		t.Errorf("%d columns, the contract has 44", len(vm.InfoColumns))
	}
}

// VMs come and go side by side, the last of a namespace again and again.
func TestComeAndGo(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			name := fmt.Sprintf("vm%d", i)
			for range 200 {
				req := []vm.Request{{Namespace: "ns", Name: name, Type: vm.KVM, Config: withNets(101)}}
				err := errors.Join(w.Launch(ctx, req, nil), w.Kill(ctx, "ns", name), w.Flush(ctx, "ns", name))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := w.net.Len(); n != 0 {
		t.Errorf("%d ports left", n)
	}
}
