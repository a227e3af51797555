package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/network/linux"
	"minimega/internal/network/networktest"
	"minimega/internal/vm"
)

// plant is a host with a daemon's network and containers.
type plant struct {
	*bench
	vms   *vm.Manager
	net   *network.Manager
	links []string // before
	// made, if set, is called once when a port has been made; with an error of
	// its own nobody learns of the port.
	made func() error
}

func newPlant(t *testing.T) *plant {
	networktest.Host(t)
	p := &plant{bench: newBench(t), links: networktest.Links(t)}
	t.Cleanup(p.noLinks)
	p.daemon()
	return p
}

// daemon takes the place of the one before, if any, which is as good as dead.
func (p *plant) daemon() {
	p.t.Helper()
	if p.vms != nil {
		p.vms.Close()
	}
	dp, err := linux.New(p.base, p.engine.log)
	if err != nil {
		p.t.Fatal(err)
	}
	net, err := network.New(dp, network.Options{Base: p.base, Log: p.engine.log})
	if err != nil {
		p.t.Fatal(err)
	}
	engine := New(Options{Base: p.base}, p.engine.log)
	vms := vm.NewManager(vm.Options{Base: p.base, Engines: []vm.Engine{engine}, Network: ports{net, p}, Parallel: 1,
		VLANName: func(_ string, vlan int) string { return strconv.Itoa(vlan) }, Log: p.engine.log}, 0)
	p.net, p.vms = net, vms
	p.t.Cleanup(func() {
		if p.vms == vms {
			if err := vms.Clear(context.Background(), ""); err != nil {
				p.t.Error(err)
			}
			vms.Close()
		}
		if err := errors.Join(engine.Close(), net.Close(context.Background())); err != nil {
			p.t.Error(err)
		}
	})
}

// adopt has a new daemon take over, and returns what it removed.
func (p *plant) adopt() (v *vm.VM, removed []string) {
	p.t.Helper()
	p.daemon()
	_, err := p.vms.Adopt(p.t.Context())
	removed, err2 := p.net.Adopt(p.t.Context(), p.vms.Ports())
	if err := errors.Join(err, err2); err != nil {
		p.t.Fatal(err)
	}
	return p.vms.List("")[0], removed
}

// ports tells when one has been made.
type ports struct {
	*network.Manager
	p *plant
}

func (n ports) Create(ctx context.Context, specs []network.PortSpec) ([]network.Port, error) {
	list, err := n.Manager.Create(ctx, specs)
	if made := n.p.made; made != nil && err == nil {
		n.p.made = nil
		err = made()
	}
	return list, err
}

// noLinks wants the host to have no interfaces of ours.
func (p *plant) noLinks() {
	p.t.Helper()
	if diff := cmp.Diff(p.links, networktest.Links(p.t)); diff != "" {
		p.t.Errorf("interfaces (-before +now):\n%s", diff)
	}
}

// container launches one with an interface on VLAN 5.
func (p *plant) container(c *vm.Config) *vm.VM {
	p.t.Helper()
	c.UUID, c.Networks = "", []vm.NetConfig{{VLAN: 5}}
	if err := p.vms.Launch(p.t.Context(), []vm.Request{{Namespace: "n", Name: "a", Type: vm.Container, Config: c}}, nil); err != nil {
		p.t.Fatal(err)
	}
	return p.vms.List("")[0]
}

func (p *plant) machine(v *vm.VM) *Machine {
	p.t.Helper()
	m, err := v.Machine()
	if err != nil {
		p.t.Fatal(err)
	}
	return m.(*Machine)
}

// inside is a handle on the interfaces in a container.
func (p *plant) inside(v *vm.VM) *netlink.Handle {
	p.t.Helper()
	ns, err := netns.GetFromPath(filepath.Join("/proc", strconv.Itoa(p.machine(v).Pid()), "ns/net"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(h.Close)
	return h
}

// names lists the cables in a container.
func (p *plant) names(v *vm.VM) string {
	p.t.Helper()
	links, err := p.inside(v).LinkList()
	if err != nil {
		p.t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		if l.Type() == "veth" { // beside them is what the kernel puts everywhere
			names = append(names, l.Attrs().Name)
		}
	}
	return strings.Join(names, " ")
}

// connected reports whether the port of an interface is on a bridge.
func (p *plant) connected(v *vm.VM, index int) bool {
	p.t.Helper()
	n, err := v.Interface(index)
	if err != nil {
		p.t.Fatal(err)
	}
	l, err := netlink.LinkByName(n.Tap)
	if err != nil {
		p.t.Fatal(err)
	}
	return l.Attrs().MasterIndex != 0
}

const addedMAC = "02:00:00:00:00:09"

// An interface can be added to a container in each of its states. It goes with
// the container, and comes again with it.
func TestAddNet(t *testing.T) {
	still := func(*plant, *vm.VM) error { return nil }
	start := func(p *plant, v *vm.VM) error { return p.vms.Start(t.Context(), "n", "a") }
	for name, c := range map[string]struct {
		users   bool
		prepare func(*plant, *vm.VM) error
	}{
		"Building": {prepare: still},
		"Running":  {prepare: start},
		"Paused": {prepare: func(p *plant, v *vm.VM) error {
			return errors.Join(start(p, v), p.vms.Stop(t.Context(), "n", "a"))
		}},
		"Users": {users: true, prepare: start},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			conf := p.config("echo")
			conf.UserNS = c.users
			v := p.container(conf)
			if err := c.prepare(p, v); err != nil {
				t.Fatal(err)
			}
			if err := p.vms.AddNets(t.Context(), "n", "a", []vm.NetConfig{{VLAN: 6, MAC: addedMAC}, {VLAN: 7}}); err != nil {
				t.Fatal(err)
			}
			if got := p.names(v); got != "veth0 veth1 veth2" {
				t.Errorf("it has %s", got)
			}
			l, err := p.inside(v).LinkByName("veth1")
			if err != nil || l.Attrs().HardwareAddr.String() != addedMAC || l.Attrs().Flags&unix.IFF_UP != 0 {
				t.Errorf("%+v, %v", l, err)
			}
			for i, n := range v.Config().Networks {
				if n.VLAN != 5+i || n.MAC == "" || !p.connected(v, i) {
					t.Errorf("%d: %+v", i, n)
				}
			}
			if err := p.vms.DisconnectNet(t.Context(), "n", "a", 1); err != nil || p.connected(v, 1) {
				t.Errorf("disconnected: %v", err)
			}
			if err := p.vms.ConnectNet(t.Context(), "n", "a", 1, 8, "", ""); err != nil || !p.connected(v, 1) {
				t.Errorf("connected again: %v", err)
			}
			if err := p.vms.Kill(t.Context(), "n", "a"); err != nil {
				t.Fatal(err)
			}
			if err := p.net.Settle(t.Context()); err != nil {
				t.Error(err)
			}
			p.noLinks()
			if err := p.vms.Start(t.Context(), "n", "a"); err != nil {
				t.Fatal(err)
			}
			if got := p.names(v); got != "veth0 veth1 veth2" || !p.connected(v, 1) || v.Config().Networks[1].VLAN != 8 {
				t.Errorf("launched again it has %s, %+v", got, v.Config().Networks)
			}
		})
	}
}

// What fails leaves nothing, and does not keep others from being added.
func TestAddNetFails(t *testing.T) {
	p := newPlant(t)
	v := p.container(p.config("echo"))
	if err := p.vms.Start(t.Context(), "n", "a"); err != nil {
		t.Fatal(err)
	}
	taken := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth1"}, PeerName: "other"}
	if err := p.inside(v).LinkAdd(taken); err != nil {
		t.Fatal(err)
	}
	before, names := networktest.Links(t), p.names(v)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		net  vm.NetConfig
		want error
		text string
	}{
		{t.Context(), vm.NetConfig{VLAN: 6}, errs.Exists, "VM a: create tap: the container has an interface veth1 already"},
		{t.Context(), vm.NetConfig{VLAN: 6, MAC: "01:00:00:00:00:09"}, errs.Invalid, "that of a group"},
		{t.Context(), vm.NetConfig{VLAN: 6, Bridge: "no/bridge"}, errs.Invalid, "invalid bridge name"},
		{gone, vm.NetConfig{VLAN: 6}, context.Canceled, ""},
	} {
		err := p.vms.AddNets(c.ctx, "n", "a", []vm.NetConfig{c.net})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.net, err)
		}
		if diff := cmp.Diff(before, networktest.Links(t)); diff != "" || p.names(v) != names || len(v.Config().Networks) != 1 {
			t.Errorf("%+v left (-before +now):\n%s, inside %s, %+v", c.net, diff, p.names(v), v.Config().Networks)
		}
	}
	if err := p.inside(v).LinkDel(taken); err != nil {
		t.Fatal(err)
	}
	if err := p.vms.AddNets(t.Context(), "n", "a", []vm.NetConfig{{VLAN: 6}}); err != nil {
		t.Error(err)
	}
}

// The container ends while it gets an interface: what is made is taken back.
func TestAddNetToEnding(t *testing.T) {
	p := newPlant(t)
	v := p.container(p.config("echo"))
	p.made = func() error {
		err := unix.Kill(p.machine(v).Pid(), unix.SIGKILL)
		until(t, "the end of the container", func() bool { return !v.State().Alive() })
		return err
	}
	err := p.vms.AddNets(t.Context(), "n", "a", []vm.NetConfig{{VLAN: 6}})
	if !errors.Is(err, errs.State) || !strings.Contains(err.Error(), "VM a: add network: the container has ended meanwhile") {
		t.Error(err)
	}
	if n := v.Config().Networks; len(n) != 1 || n[0].Tap != "" {
		t.Errorf("it has %+v", n)
	}
	if err := p.net.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	p.noLinks()
}

// A daemon is killed when it has made an interface and not written it down: the
// next one removes it, on both sides. One that is written down stays.
func TestAddNetCutOff(t *testing.T) {
	p := newPlant(t)
	v := p.container(p.config("echo"))
	if err := p.vms.Start(t.Context(), "n", "a"); err != nil {
		t.Fatal(err)
	}
	killed := errors.New("killed")
	p.made = func() error { return killed }
	if err := p.vms.AddNets(t.Context(), "n", "a", []vm.NetConfig{{VLAN: 6}}); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	if got := p.names(v); got != "veth0 veth1" {
		t.Fatalf("it has %s", got)
	}
	v, removed := p.adopt()
	if got := p.names(v); got != "veth0" || len(removed) != 2 || len(v.Config().Networks) != 1 || !p.connected(v, 0) {
		t.Errorf("it has %s, %+v; removed: %v", got, v.Config().Networks, removed)
	}
	if err := p.vms.AddNets(t.Context(), "n", "a", []vm.NetConfig{{VLAN: 6, MAC: addedMAC}}); err != nil {
		t.Fatal(err)
	}
	v, removed = p.adopt()
	if n := v.Config().Networks; len(removed) != 0 || len(n) != 2 || n[1].VLAN != 6 || n[1].MAC != addedMAC || !p.connected(v, 1) {
		t.Errorf("it has %+v; removed: %v", n, removed)
	}
	if got := p.names(v); got != "veth0 veth1" {
		t.Errorf("in the end it has %s", got)
	}
}

// The network namespace of a container is found as long as it lives, also when
// another daemon has made it, and no other.
func TestSpace(t *testing.T) {
	b := newBench(t)
	s := b.spec(b.config("echo"))
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	pid := first.(*Machine).keeper.pid
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := New(Options{Base: b.base}, b.engine.log)
	t.Cleanup(func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	adopted, err := second.Adopt(t.Context(), s, pid)
	if err != nil {
		t.Fatal(err)
	}
	b.endAfter(adopted)
	m := adopted.(*Machine)
	space, err := m.Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer space.Close()
	is, err := space.Stat()
	want, err2 := s.Space.Stat()
	if err := errors.Join(err, err2); err != nil || !os.SameFile(is, want) {
		t.Errorf("another namespace, %v", err)
	}
	if err := unix.Kill(m.Pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 2 { // on its way, and ended
		if space, err := m.Space(t.Context()); !errors.Is(err, errs.State) && err != nil {
			t.Errorf("%v, %v", space, err)
		} else {
			space.Close()
		}
		<-m.Done()
	}
	if _, err := m.Space(t.Context()); !errors.Is(err, errs.State) {
		t.Errorf("of an ended container: %v", err)
	}
}

// A daemon that dies between the kill of a paused container and the thaw, which
// version 1 of control groups needs, leaves one that would end as soon as
// somebody starts it: it has ended.
func TestAdoptKilledWhilePaused(t *testing.T) {
	for name, c := range map[string]struct {
		file, signal bool // what there is of the kill
		want         vm.State
	}{"by us": {true, true, vm.Quit}, "nearly by us": {true, false, vm.Quit}, "by others": {false, true, vm.Error}} {
		t.Run(name, func(t *testing.T) { adoptKilled(t, c.file, c.signal, c.want) })
	}
}

func adoptKilled(t *testing.T, file, signal bool, want vm.State) {
	p := newPlant(t)
	v := p.container(p.config("echo"))
	if err := errors.Join(p.vms.Start(t.Context(), "n", "a"), p.vms.Stop(t.Context(), "n", "a")); err != nil {
		t.Fatal(err)
	}
	m := p.machine(v)
	keeper := m.keeper.pid
	p.vms.Close() // so that nobody sees it end
	p.vms = nil
	err := m.Close()
	if file {
		err = errors.Join(err, os.WriteFile(filepath.Join(v.Dir(), killedName), nil, 0o600))
	}
	if signal {
		err = errors.Join(err, unix.Kill(m.Pid(), unix.SIGKILL))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // it stays our child
		_ = unix.Kill(keeper, unix.SIGKILL)
		_, _ = unix.Wait4(keeper, nil, 0, nil)
	}()
	v, _ = p.adopt()
	if v.State() != want || want == vm.Error && !strings.Contains(v.Tag("error"), "init was killed by signal 9") {
		t.Errorf("%v, %q", v.State(), v.Tag("error"))
	}
	if err := p.vms.Start(t.Context(), "n", "a"); err != nil || v.State() != vm.Running || v.Tag("error") != "" {
		t.Errorf("started again: %v, %v, %q", err, v.State(), v.Tag("error"))
	}
}
