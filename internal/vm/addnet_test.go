package vm_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/vm"
	"minimega/internal/vm/vmtest"
)

// plugging is an engine whose machines take interfaces in, in two steps as
// QEMU does. What they have outlives the manager.
type plugging struct {
	processes
	has *plugs
}

// plugs is what a machine has; step is called after each step of an AddNet.
type plugs struct {
	netdevs, devices map[string]bool
	step             func(string)
	cleaned          atomic.Int32
}

func (e plugging) Clean(context.Context, string) error {
	e.has.cleaned.Add(1)
	return nil
}

func (e plugging) Launch(ctx context.Context, s *vm.Spec) (vm.Machine, error) {
	m, err := e.processes.Launch(ctx, s)
	if err != nil {
		return nil, err
	}
	return pluggable{m.(*process), e.has}, nil
}

func (e plugging) Adopt(ctx context.Context, s *vm.Spec, pid int) (vm.Machine, error) {
	m, err := e.processes.Adopt(ctx, s, pid)
	if err != nil {
		return nil, err
	}
	return pluggable{m.(*process), e.has}, nil
}

type pluggable struct {
	*process
	has *plugs
}

func (p pluggable) AddNet(_ context.Context, n vm.NetConfig) error {
	p.has.step("note")
	if p.has.netdevs[n.Tap] {
		return errs.New(errs.Exists, "Duplicate ID '%s'", n.Tap)
	}
	p.has.netdevs[n.Tap] = true
	p.has.step("netdev")
	p.has.devices[n.Tap] = true
	p.has.step("device")
	return nil
}

func (p pluggable) SettleNet(_ context.Context, n vm.NetConfig) (bool, error) {
	if !p.has.devices[n.Tap] {
		delete(p.has.netdevs, n.Tap)
	}
	return p.has.devices[n.Tap], nil
}

// stepped is a network that tells when it has made a port.
type stepped struct {
	*vmtest.Network
	has *plugs
}

func (s stepped) Create(ctx context.Context, specs []network.PortSpec) ([]network.Port, error) {
	ports, err := s.Network.Create(ctx, specs)
	s.has.step("tap")
	return ports, err
}

// cutOff leaves what a daemon does that is killed after a step of `vm net add`
// to VM a, which had one interface. It returns the machine's picture.
func cutOff(t *testing.T, at string) (base, dir string, has *plugs) {
	t.Helper()
	base = t.TempDir()
	has = &plugs{netdevs: map[string]bool{}, devices: map[string]bool{}, step: func(string) {}}
	m := vm.NewManager(vm.Options{Base: base, Host: "h", Engines: []vm.Engine{plugging{has: has}}, Network: stepped{&vmtest.Network{}, has},
		Parallel: 1, VLANName: func(_ string, v int) string { return fmt.Sprint(v) }, Log: slog.New(slog.DiscardHandler)}, 0)
	if err := m.Launch(t.Context(), []vm.Request{{Namespace: "ns", Name: "a", Type: vm.KVM, Config: withNets(5)}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), "ns", "a"); err != nil {
		t.Fatal(err)
	}
	dir = m.List("ns")[0].Dir()
	t.Cleanup(func() { endIn(t, dir) })
	path := filepath.Join(dir, "vm.json")
	var record []byte
	left := &plugs{step: func(string) {}}
	has.step = func(step string) {
		if step != at {
			return
		}
		left.netdevs, left.devices = maps.Clone(has.netdevs), maps.Clone(has.devices)
		var err error
		if record, err = os.ReadFile(path); err != nil {
			t.Error(err)
		}
	}
	if err := m.AddNets(t.Context(), "ns", "a", withNets(6).Networks); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if err := os.WriteFile(path, record, 0o600); err != nil {
		t.Fatal(err)
	}
	return base, dir, left
}

// adoptedNet is the network of the next daemon, with that many taps.
func adoptedNet(t *testing.T, taps int) *vmtest.Network {
	t.Helper()
	n := &vmtest.Network{}
	if _, err := n.Create(t.Context(), make([]network.PortSpec, taps)); err != nil {
		t.Fatal(err)
	}
	return n
}

// A daemon that is killed at any step of `vm net add` leaves an interface that
// is whole, or nothing of it: the next `vm net add` works.
func TestAddNetCutOff(t *testing.T) {
	for step, nets := range map[string]int{"tap": 1, "note": 1, "netdev": 1, "device": 2} {
		t.Run(step, func(t *testing.T) {
			base, _, has := cutOff(t, step)
			for range 2 { // and a second daemon finds the same
				m := heirOf(base, plugging{has: has}, adoptedNet(t, nets))
				if _, err := m.Adopt(t.Context()); err != nil {
					t.Fatal(err)
				}
				checkNets(t, m, has, nets)
				m.Close()
			}
			m := heirOf(base, plugging{has: has}, adoptedNet(t, nets))
			defer m.Close()
			if _, err := m.Adopt(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.AddNets(t.Context(), "ns", "a", withNets(7).Networks); err != nil {
				t.Error(err)
			}
			checkNets(t, m, has, nets+1)
		})
	}
}

// checkNets expects the VM to have that many interfaces, of which the machine
// has been given all but the first while it ran.
func checkNets(t *testing.T, m *vm.Manager, has *plugs, nets int) {
	t.Helper()
	v, err := m.Find("ns", "a")
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Config().Networks; len(got) != nets || len(m.Ports()) != nets || len(has.netdevs) != nets-1 || len(has.devices) != nets-1 {
		t.Errorf("configured: %v, ports: %v, netdevs: %v, devices: %v", got, m.Ports(), has.netdevs, has.devices)
	}
	for _, n := range v.Config().Networks[1:] {
		if !has.devices[n.Tap] || n.MAC == "" || n.VLAN < 6 {
			t.Errorf("%+v is not what was plugged in: %v", n, has.devices)
		}
	}
}

// The machine has ended as well: there is nothing that could have the interface.
func TestAddNetCutOffEnded(t *testing.T) {
	base, dir, has := cutOff(t, "device")
	endIn(t, dir)
	m := heirOf(base, plugging{has: has}, adoptedNet(t, 1))
	defer m.Close()
	if _, err := m.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ports := m.Ports(); len(ports) != 1 || has.cleaned.Load() == 0 || len(m.List("ns")[0].Config().Networks) != 1 {
		t.Errorf("ports: %v", ports)
	}
	if err := m.Flush(t.Context(), "ns", "a"); err != nil {
		t.Error(err)
	}
}

// The tap stays as long as nobody knows whether a machine has it, and no longer.
func TestAddNetCutOffSilent(t *testing.T) {
	for step, nets := range map[string]int{"netdev": 1, "device": 2, "killed": 1} {
		t.Run(step, func(t *testing.T) {
			at := step
			if step == "killed" {
				at = "device"
			}
			base, _, has := cutOff(t, at)
			var still atomic.Bool
			still.Store(true)
			net := adoptedNet(t, 2)
			m := heirOf(base, plugging{processes{silent: &still}, has}, net)
			defer m.Close()
			if _, err := m.Adopt(t.Context()); err == nil {
				t.Fatal("it answers")
			}
			if ports := m.Ports(); len(ports) != 2 {
				t.Fatalf("ports: %v", ports)
			}
			v := m.List("ns")[0]
			if step == "killed" {
				if err := m.Kill(t.Context(), "ns", "a"); err != nil {
					t.Error(err)
				}
				if has.cleaned.Load() == 0 {
					t.Error("what else it left is still there")
				}
			} else {
				still.Store(false)
				for v.Tag("error") != "" && t.Context().Err() == nil {
					time.Sleep(10 * time.Millisecond)
				}
				checkNets(t, m, has, nets)
			}
			if net.Len() != nets || len(v.Config().Networks) != nets {
				t.Errorf("%d taps, %+v", net.Len(), v.Config().Networks)
			}
		})
	}
}
