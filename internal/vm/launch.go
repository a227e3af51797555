package vm

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/network"
	"minimega/internal/undo"
)

// Request asks for one VM.
type Request struct {
	Namespace string
	Name      string
	Type      Type
	Config    *Config // copied
}

// Launch makes the VMs, as many at once as the machine can take, each paused
// at its first instruction. Either all names, UUIDs and disks are free and
// every VM is tried, or nothing happens. progress, if not nil, is told after
// each one. The error joins those of all VMs that failed; these are left in
// state Error if they had come as far as having an ID, with nothing else left.
func (m *Manager) Launch(ctx context.Context, reqs []Request, progress func(done, failed int)) error {
	if err := m.conflicts(reqs); err != nil {
		return err // before the engine finds a lock and cannot say whose it is
	}
	for _, r := range reqs {
		if err := m.check(ctx, r.Type, r.Config); err != nil {
			return errs.InVM(err, r.Name)
		}
	}
	vms, err := m.reserve(reqs)
	if err != nil {
		return err
	}
	failures := make([]error, len(vms))
	var mu sync.Mutex // guards done and failed
	var done, failed int
	var wg sync.WaitGroup
	for i, v := range vms {
		m.slots <- struct{}{}
		wg.Go(func() {
			err := v.launch(ctx)
			<-m.slots
			failures[i] = errs.InVM(err, v.Name)
			if progress == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; err != nil {
				failed++
			}
			progress(done, failed)
		})
	}
	wg.Wait()
	return errs.Join(failures...)
}

func (m *Manager) check(ctx context.Context, t Type, c *Config) error {
	e := m.engines[t]
	if e == nil {
		return errs.New(errs.Unsupported, "cannot launch a %s here: no engine for it", t)
	}
	return errs.AtStep(e.Check(ctx, c), "check")
}

// conflicts refuses requests for disks that VMs here write to.
func (m *Manager) conflicts(reqs []Request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.takenLocked()
	for _, r := range reqs {
		if err := taken.conflict(r.Config); err != nil {
			return errs.InVM(err, r.Name)
		}
	}
	return nil
}

// reserve takes names, UUIDs and IDs for all requests or none.
func (m *Manager) reserve(reqs []Request) ([]*VM, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := m.takenLocked()
	vms := make([]*VM, len(reqs))
	for i, r := range reqs {
		c := r.Config.Clone()
		c.UUID = strings.ToLower(c.UUID)
		if c.UUID == "" {
			c.UUID = newUUID()
		}
		if err := taken.add(r.Namespace, r.Name, c); err != nil {
			return nil, err
		}
		for j := range c.Networks {
			if c.Networks[j].MAC == "" {
				c.Networks[j].MAC = newMAC()
			}
		}
		vms[i] = &VM{
			ID: m.nextID + i, Name: r.Name, Namespace: r.Namespace, UUID: c.UUID, Type: r.Type, Created: time.Now(),
			manager: m, turn: make(chan struct{}, 1), state: Building, config: c,
		}
	}
	for _, v := range vms {
		v.turn <- struct{}{} // the launch has the first turn
		m.vms[v.ID] = v
		m.names[nameKey(v.Namespace, v.Name)] = v
	}
	m.nextID += len(vms)
	return vms, nil
}

// taken is what the VMs that exist hold for themselves.
type taken struct {
	names, uuids map[string]bool
	disks        map[string]diskUse
	roots        map[string]diskUse
}

type diskUse struct {
	vm        string
	exclusive bool // written in place
}

func (m *Manager) takenLocked() *taken {
	t := &taken{names: map[string]bool{}, uuids: map[string]bool{}, disks: map[string]diskUse{}, roots: map[string]diskUse{}}
	for _, v := range m.vms {
		t.names[nameKey(v.Namespace, v.Name)] = true
		t.uuids[v.UUID] = true
		v.mu.Lock()
		state, c := v.state, v.config
		v.mu.Unlock()
		if state.Alive() {
			t.hold(v.Name, c)
		}
	}
	return t
}

// add claims what a new VM needs, or says who has it.
func (t *taken) add(namespace, name string, c *Config) error {
	if t.names[nameKey(namespace, name)] {
		return errs.New(errs.Exists, "vm already exists with name `%s`", name)
	}
	if t.uuids[c.UUID] {
		return errs.New(errs.Exists, "vm already exists with UUID `%s`", c.UUID)
	}
	if err := t.conflict(c); err != nil {
		return errs.InVM(err, name)
	}
	t.names[nameKey(namespace, name)] = true
	t.uuids[c.UUID] = true
	t.hold(name, c)
	return nil
}

func (t *taken) conflict(c *Config) error {
	for _, d := range c.Disks {
		if u, ok := t.disks[d.Path]; ok && (u.exclusive || !c.Snapshot) {
			return errs.WithRemedy(errs.New(errs.State, "disk conflict with vm %s: %s", u.vm, d.Path),
				"set `vm config snapshot true` for both, or give each its own image")
		}
	}
	if u, ok := t.roots[c.FilesystemPath]; ok && (u.exclusive || !c.Snapshot) {
		return errs.New(errs.State, "filesystem conflict with vm %s: %s", u.vm, c.FilesystemPath)
	}
	return nil
}

func (t *taken) hold(name string, c *Config) {
	use := diskUse{vm: name, exclusive: !c.Snapshot}
	for _, d := range c.Disks {
		t.disks[d.Path] = use
	}
	if c.FilesystemPath != "" {
		t.roots[c.FilesystemPath] = use
	}
}

// launch makes the machine of a reserved VM. The caller has the VM's turn,
// which launch gives back.
func (v *VM) launch(ctx context.Context) error {
	defer v.give()
	if err := v.makeMachine(ctx); err != nil {
		v.fail(err)
		return err
	}
	return nil // in state Building, which is not in a file before it changes
}

// makeMachine does the steps from a reserved or ended VM to a paused machine.
// When one fails, nothing that this call made is left.
func (v *VM) makeMachine(ctx context.Context) error {
	again := v.relaunched()
	var machine Machine
	var space *os.File
	dir := undo.Step{Name: "make instance directory", Do: func(context.Context) error { return v.makeDir() }, Undo: v.removeDir}
	ns := undo.Step{Name: "make network namespace", Do: v.keep}
	var made []string // of the taps: those of an earlier launch, which a machine that opens taps keeps, stay
	taps := undo.Step{Name: "make taps", Do: func(ctx context.Context) (err error) { made, err = v.makeTaps(ctx, space); return err },
		Undo: func() error { return v.removeTaps(made) }}
	if spacer := v.spacer(); spacer != nil {
		ns.Do = func(ctx context.Context) (err error) {
			space, err = spacer.NewSpace(ctx, &Spec{ID: v.ID, Name: v.Name, Namespace: v.Namespace, Dir: v.Dir(), Config: v.Config(), Log: v.log()})
			return err
		}
		defer func() { _ = space.Close() }() // the machine has it
	}
	if again { // the directory stays
		dir.Do, dir.Undo = v.keep, nil
	}
	err := undo.Run(ctx, dir, ns, taps, undo.Step{Name: "start " + v.Type.String(), Do: func(ctx context.Context) (err error) {
		c := v.Config().Clone()
		machine, err = v.manager.engines[v.Type].Launch(ctx, &Spec{
			ID: v.ID, Name: v.Name, Namespace: v.Namespace, Dir: v.Dir(), Config: c, Space: space, Log: v.log()})
		if err != nil {
			return err
		}
		v.mu.Lock()
		v.config, v.machine, v.made, v.ended = c, machine, true, make(chan struct{})
		ended := v.ended
		v.mu.Unlock()
		v.manager.watchers.Add(1)
		go v.watch(machine, ended)
		return nil
	}})
	if err != nil {
		return err
	}
	v.writeConfig()
	return nil
}

func (v *VM) keep(context.Context) error { return nil }

// spacer returns the engine if its machines live in network namespaces.
func (v *VM) spacer() Spacer {
	s, _ := v.manager.engines[v.Type].(Spacer)
	return s
}

// makeTaps makes a port for every interface that has none, all or none, and
// returns their names. space is the network namespace of the interfaces, nil for
// a machine that opens taps.
func (v *VM) makeTaps(ctx context.Context, space *os.File) (made []string, err error) {
	if space == nil && v.Type != KVM {
		return nil, nil
	}
	var specs []network.PortSpec
	var at []int
	for i, n := range v.Config().Networks {
		if n.Tap == "" {
			s := v.portSpec(i, n)
			s.Space = space
			specs, at = append(specs, s), append(at, i)
		}
	}
	if len(specs) == 0 {
		return nil, nil
	}
	ports, err := v.manager.opts.Network.Create(ctx, specs)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.config.Clone()
	for i, p := range ports {
		n.Networks[at[i]].Tap = p.Name
		made = append(made, p.Name)
	}
	v.config = n
	return made, nil
}

// portSpec is the port of an interface.
func (v *VM) portSpec(i int, n NetConfig) network.PortSpec {
	s := network.PortSpec{Kind: network.Tap, Bridge: n.Bridge, VLAN: n.VLAN, Namespace: v.Namespace,
		Owner: fmt.Sprintf("vm %s:%d", v.Name, i), MAC: n.MAC}
	if v.spacer() != nil {
		s.Kind, s.Inside = network.Container, fmt.Sprintf("veth%d", i)
	}
	return s
}

// removeTaps takes ports away again.
func (v *VM) removeTaps(names []string) error {
	if names = v.forgetTaps(names); len(names) == 0 {
		return nil
	}
	return v.manager.opts.Network.Delete(context.Background(), names...)
}

// forgetTaps takes these ports from the VM, and returns those that it had: they
// are somebody else's then.
func (v *VM) forgetTaps(names []string) (had []string) {
	if len(names) == 0 {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.config.Clone()
	for i := range n.Networks {
		if tap := n.Networks[i].Tap; slices.Contains(names, tap) {
			had = append(had, tap)
			n.Networks[i].Tap = ""
		}
	}
	v.config = n
	return had
}

func (v *VM) tapNames() []string {
	var names []string
	for _, n := range v.Config().Networks {
		if n.Tap != "" {
			names = append(names, n.Tap)
		}
	}
	return names
}

// newUUID returns a random UUID (RFC 9562, version 4), lower case.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// newMAC returns a random address with the prefix of a vendor of real network
// cards, so that a guest does not look virtual at first sight.
func newMAC() string {
	prefixes := [][3]byte{{0x00, 0x1b, 0x21}, {0x00, 0x15, 0x17}, {0x00, 0x1e, 0x67}, {0x00, 0x26, 0xb9}, {0x00, 0x21, 0x9b}, {0x00, 0x25, 0x90}}
	var b [4]byte
	_, _ = rand.Read(b[:])
	p := prefixes[int(b[3])%len(prefixes)]
	return net.HardwareAddr{p[0], p[1], p[2], b[0], b[1], b[2]}.String()
}
