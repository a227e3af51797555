package vm

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/network"
)

// How long a machine may take to answer its new daemon, and to go by force.
const (
	adoptTime = 5 * time.Second
	endTime   = 10 * time.Second
)

// Lost is a VM that an earlier daemon left half made, and that was removed.
type Lost struct {
	ID        int
	Name      string
	Namespace string
	Reason    string
}

// Adoption tells what came of the VMs of an earlier daemon.
type Adoption struct {
	Running int    // machines taken over
	Ended   int    // VMs whose machine has ended
	Lost    []Lost // half made ones, removed; see Manager.Lost
}

// instance is an instance directory as an earlier daemon left it.
type instance struct {
	id      int
	dir     string
	pids    []int // processes that have the directory on their command line
	record  *record
	invalid error // why there is no record
	state   State
	gone    bool // only the process is left
}

// Adopt takes over the VMs of an earlier daemon in the same base directory: it
// must be the first call. Machines that run are taken over as they are; VMs
// whose machine has ended are QUIT or ERROR; what was half launched or half
// flushed is removed. Failures concern single VMs, and leave the others alone.
func (m *Manager) Adopt(ctx context.Context) (Adoption, error) {
	found, err := m.survey()
	if err != nil {
		return Adoption{}, err
	}
	var a Adoption
	var mu sync.Mutex // guards a
	failed := eachInstance(found, func(i *instance) error {
		v, lost, err := m.adopt(ctx, i)
		mu.Lock()
		defer mu.Unlock()
		if lost != nil {
			a.Lost = append(a.Lost, *lost)
		}
		if v != nil && v.State().Alive() {
			a.Running++
		} else if v != nil {
			a.Ended++
		}
		return err
	})
	slices.SortFunc(a.Lost, func(x, y Lost) int { return x.ID - y.ID })
	m.mu.Lock()
	m.lost = a.Lost
	for _, i := range found {
		m.nextID = max(m.nextID, i.id+1)
	}
	m.mu.Unlock()
	return a, errors.Join(failed, removeStale(m.opts.Base))
}

// Lost returns what Adopt found half made and removed.
func (m *Manager) Lost() []Lost { m.mu.Lock(); defer m.mu.Unlock(); return slices.Clone(m.lost) }

// ForgetLost empties what Lost returns.
func (m *Manager) ForgetLost() { m.mu.Lock(); m.lost = nil; m.mu.Unlock() }

// Discard ends and removes all that an earlier daemon left, and returns a line
// for each. It is for those who do not Adopt.
func (m *Manager) Discard(ctx context.Context) ([]string, error) {
	found, err := m.survey()
	if err != nil {
		return nil, err
	}
	lines := map[int]string{}
	var mu sync.Mutex // guards lines
	err = eachInstance(found, func(i *instance) error {
		if err := m.discard(ctx, i); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		lines[i.id] = "VM " + i.name() + " (" + i.dir + ")"
		return nil
	})
	removed := make([]string, 0, len(lines))
	for _, id := range slices.Sorted(maps.Keys(lines)) {
		removed = append(removed, lines[id])
	}
	return removed, errors.Join(err, removeStale(m.opts.Base))
}

// Ports returns what the VMs have of the network, for its owner to adopt.
func (m *Manager) Ports() []network.PortSpec {
	var specs []network.PortSpec
	for _, v := range m.List("") {
		for i, n := range v.Config().Networks {
			if n.Tap != "" {
				s := v.portSpec(i, n)
				s.Name = n.Tap
				specs = append(specs, s)
			}
		}
		v.mu.Lock()
		if n := v.adding; n != nil && n.Tap != "" { // of a machine that does not answer yet
			s := v.portSpec(len(v.config.Networks), *n)
			s.Name = n.Tap
			specs = append(specs, s)
		}
		v.mu.Unlock()
	}
	return specs
}

// LosePorts has the VMs forget those of their ports that are not there any more:
// somebody else's may get their names. A relaunch makes new ones.
func (m *Manager) LosePorts(there func(tap string) bool) {
	for _, v := range m.List("") {
		if lost := v.forgetTaps(slices.DeleteFunc(v.tapNames(), there)); len(lost) > 0 {
			v.writeConfig()
		}
	}
}

func eachInstance(found []*instance, do func(*instance) error) error {
	failed := make([]error, len(found))
	slots := make(chan struct{}, wide)
	var wg sync.WaitGroup
	for at, i := range found {
		slots <- struct{}{}
		wg.Go(func() {
			failed[at] = errs.InVM(do(i), i.name())
			<-slots
		})
	}
	wg.Wait()
	return errs.Join(failed...)
}

// survey reads the instance directories and finds their processes.
func (m *Manager) survey() ([]*instance, error) {
	entries, err := os.ReadDir(m.opts.Base)
	if err != nil {
		return nil, err
	}
	var found []*instance
	byDir := map[string]*instance{}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil || strconv.Itoa(id) != e.Name() || id < 0 || !e.IsDir() {
			continue
		}
		i := &instance{id: id, dir: filepath.Join(m.opts.Base, e.Name())}
		i.read()
		found = append(found, i)
		byDir[i.dir] = i
	}
	processes, err := host.Processes()
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		home := m.home(p.Args)
		if i := byDir[home]; i != nil {
			i.pids = append(i.pids, p.Pid)
		} else if m.orphan(home) {
			i = &instance{id: -1, dir: home, pids: []int{p.Pid}, gone: true}
			byDir[home] = i
			found = append(found, i)
		}
	}
	return found, nil
}

// home is the instance directory on the command line of a process, "" if none.
func (m *Manager) home(args []string) string {
	for _, e := range m.opts.Engines {
		if a, ok := e.(Adopter); ok {
			if dir := a.Instance(args); dir != "" {
				return dir
			}
		}
	}
	return ""
}

// orphan reports whether a directory that does not exist was one of ours: its
// daemon died between the end of the files and that of the process.
func (m *Manager) orphan(dir string) bool {
	if dir == "" || filepath.Dir(dir) != m.opts.Base {
		return false
	}
	_, err := strconv.Atoi(filepath.Base(dir))
	return err == nil
}

func (i *instance) read() {
	i.record, i.invalid = readRecord(i.dir)
	i.state = readState(i.dir)
	_ = host.RemoveTemps(i.dir) // what stays is only untidy
}

// name is how to speak of the VM.
func (i *instance) name() string {
	if i.record != nil {
		return i.record.Name
	}
	if text, err := os.ReadFile(filepath.Join(i.dir, "name")); err == nil && len(text) > 0 && len(text) < 256 {
		return string(text)
	}
	return filepath.Base(i.dir)
}

// adopt makes a VM of an instance, or removes it.
func (m *Manager) adopt(ctx context.Context, i *instance) (*VM, *Lost, error) {
	switch {
	case i.gone:
		return nil, nil, m.discard(ctx, i)
	case i.invalid != nil || !i.record.Made:
		lost := &Lost{ID: i.id, Name: i.name(), Reason: "minimega ended while it was being launched"}
		if i.record != nil {
			lost.Namespace = i.record.Namespace
		}
		return nil, lost, m.discard(ctx, i)
	}
	v := m.revive(i)
	var lost *Lost
	var failed error
	switch {
	case i.state.Alive() && len(i.pids) > 0:
		failed = v.takeOver(ctx, i)
	case i.state.Alive():
		failed = m.end(ctx, i)
		v.lastState(m.remains(v))
	case len(i.pids) > 0: // it was never said to run again
		lost = &Lost{ID: v.ID, Name: v.Name, Namespace: v.Namespace, Reason: "minimega ended while it was being started again"}
		failed = m.end(ctx, i)
	}
	if !v.State().Alive() {
		failed = errors.Join(failed, v.dropNet(ctx))
		if v.spacer() != nil { // its taps have gone with it
			v.forgetTaps(v.tapNames())
		}
	}
	if _, err := os.Readlink(v.linkPath()); err != nil {
		failed = errors.Join(failed, v.makeLink())
	}
	return v, lost, failed
}

// revive makes the VM of a record known, in the state in which it was left.
func (m *Manager) revive(i *instance) *VM {
	r := i.record
	c := r.Config
	c.UUID = r.UUID
	if c.Tags == nil {
		c.Tags = map[string]string{}
	}
	v := &VM{ID: r.ID, Name: r.Name, Namespace: r.Namespace, UUID: r.UUID, Type: r.kind(), Created: r.Created,
		manager: m, turn: make(chan struct{}, 1), state: i.state, config: c, made: true, failure: r.Failure, adding: r.Adding}
	m.mu.Lock()
	m.vms[v.ID] = v
	m.names[nameKey(v.Namespace, v.Name)] = v
	m.mu.Unlock()
	return v
}

// takeOver makes the process of an instance the machine of v. One that does
// not answer in time is kept, see silent; one that cannot be driven is ended.
func (v *VM) takeOver(ctx context.Context, i *instance) error {
	if _, ok := v.manager.engines[v.Type].(Adopter); !ok {
		v.fail(errs.New(errs.State, "minimega ended, and no %s can be taken over", v.Type))
		return v.manager.end(context.Background(), i)
	}
	machine, c, state, err := v.reach(ctx, i)
	switch {
	case err == nil:
	case gone(i.pids):
		err = v.manager.end(context.Background(), i) // it was on its way out, and may have left more than files
		v.lastState(v.manager.remains(v))
		return err
	case mute(err):
		return v.wait(i, errs.AtStep(err, "adopt"))
	default:
		err = errs.AtStep(err, "adopt")
		v.fail(err)
		return errors.Join(err, v.manager.end(context.Background(), i))
	}
	forgetSilence(c)
	v.mu.Lock()
	v.config, v.machine, v.ended, v.state, v.adding = c, machine, make(chan struct{}), state, nil
	ended := v.ended
	v.mu.Unlock()
	v.manager.watchers.Add(1)
	go v.watch(machine, ended)
	v.writeConfig()
	v.setStateIfAlive(state)
	return nil
}

// reach asks the engine to take the process over, and the machine for its state.
func (v *VM) reach(ctx context.Context, i *instance) (Machine, *Config, State, error) {
	ctx, cancel := context.WithTimeout(ctx, adoptTime)
	defer cancel()
	c := v.Config().Clone()
	machine, err := v.manager.engines[v.Type].(Adopter).Adopt(ctx, &Spec{ID: v.ID, Name: v.Name, Namespace: v.Namespace, Dir: v.Dir(), Config: c,
		VNCPort: i.record.VNCPort, Log: v.log()}, i.pid())
	if err != nil {
		return nil, nil, 0, err
	}
	if err := v.settleNet(ctx, machine, c); err != nil {
		_ = machine.Close()
		return nil, nil, 0, err
	}
	state := i.state
	if s, ok := machine.(Stater); ok {
		if now, err := s.Status(ctx); err == nil {
			state = now
		}
	}
	return machine, c, state, nil
}

// pid is the process to talk to: a wrapper around the hypervisor has the same
// command line as that.
func (i *instance) pid() int {
	if slices.Contains(i.pids, i.record.Pid) {
		return i.record.Pid
	}
	return i.pids[len(i.pids)-1]
}

func (m *Manager) remains(v *VM) error {
	if a, ok := m.engines[v.Type].(Adopter); ok {
		return a.Remains(v.Dir())
	}
	return nil
}

// lastState is that of a VM whose machine ended while nobody watched.
func (v *VM) lastState(why error) {
	if why != nil {
		v.fail(why)
		return
	}
	v.setState(Quit)
}

// discard ends the processes of an instance and removes its directory.
func (m *Manager) discard(ctx context.Context, i *instance) error {
	return errors.Join(m.end(ctx, i), host.RemoveAll(i.dir))
}

// end ends what is left of the machine of an instance, whatever engine made it.
func (m *Manager) end(ctx context.Context, i *instance) error {
	return errors.Join(endAll(ctx, i.pids), m.clean(ctx, i))
}

// clean removes what the machine of an instance, which has ended, left besides
// processes, whatever engine made it.
func (m *Manager) clean(ctx context.Context, i *instance) error {
	var failed []error
	for _, e := range m.opts.Engines {
		if c, ok := e.(Cleaner); ok {
			failed = append(failed, c.Clean(ctx, i.dir))
		}
	}
	return errors.Join(failed...)
}

// endAll ends processes by force and returns when they are gone.
func endAll(ctx context.Context, pids []int) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	var failed []error
	for _, pid := range pids {
		p, err := host.AdoptProc(pid)
		if err != nil {
			continue // gone already
		}
		failed = append(failed, p.Kill(ctx), p.Close())
	}
	return errors.Join(failed...)
}

// gone reports whether none of the processes is left after a moment.
func gone(pids []int) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, pid := range pids {
		p, err := host.AdoptProc(pid)
		if err != nil {
			continue
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			_ = p.Close()
			return false
		}
		_ = p.Close()
	}
	return true
}
