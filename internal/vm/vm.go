package vm

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"minimega/internal/errs"
)

// State is where a VM is in its life. The numbers are part of the JSON of `vm info`.
type State int

// The states. Launch leads to Building, start to Running, stop to Paused; the
// end of the process to Quit, or to Error if it was not asked for.
const (
	Building State = 1 << iota
	Running
	Paused
	Quit
	Error
)

var stateNames = map[State]string{Building: "BUILDING", Running: "RUNNING", Paused: "PAUSED", Quit: "QUIT", Error: "ERROR"}

// String is the upper-case word of `vm info`.
func (s State) String() string { return stateNames[s] }

// Alive reports whether a VM in this state has a process.
func (s State) Alive() bool { return s&(Building|Running|Paused) != 0 }

// VM is one machine of this host, from the moment its name is taken until it
// is flushed. The Manager hands VMs out; only it and the VM change them.
type VM struct {
	ID        int
	Name      string
	Namespace string
	UUID      string
	Type      Type
	Created   time.Time

	manager *Manager
	turn    chan struct{} // holds one token: who has it may change the life of the VM

	mu      sync.Mutex // guards the fields below
	state   State
	config  *Config // never changed in place: replaced by an edited copy
	machine Machine // nil while there is no process
	ended   chan struct{}
	made    bool       // the instance directory and the taps exist
	failure *Failure   // why it is in Error, as far as known
	adding  *NetConfig // an interface that is being plugged in, of which the machine may know

	recording sync.Mutex // held while a record is written, and guards the field below
	records   int        // that this process has written
}

// Dir is the instance directory.
func (v *VM) Dir() string { return filepath.Join(v.manager.opts.Base, strconv.Itoa(v.ID)) }

// State returns the present state.
func (v *VM) State() State { v.mu.Lock(); defer v.mu.Unlock(); return v.state }

// Config returns the present configuration, which must not be changed.
func (v *VM) Config() *Config { v.mu.Lock(); defer v.mu.Unlock(); return v.config }

// Machine returns the running process, or an error that says why there is none.
func (v *VM) Machine() (Machine, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.machine == nil {
		return nil, errs.New(errs.State, "vm not running: %d", v.ID)
	}
	return v.machine, nil
}

// Tag returns a tag, "" when it is not set.
func (v *VM) Tag(key string) string { return v.Config().Tags[key] }

// SetTag sets a tag.
func (v *VM) SetTag(key, value string) {
	v.edit(func(c *Config) { c.Tags[key] = value })
}

// ClearTag removes a tag; the key `all` removes every one.
func (v *VM) ClearTag(key string) {
	v.edit(func(c *Config) {
		if key == "" || key == "all" {
			clear(c.Tags)
			return
		}
		delete(c.Tags, key)
	})
}

// edit replaces the configuration by a changed copy and writes it to disk.
func (v *VM) edit(change func(*Config)) {
	v.mu.Lock()
	c := v.config.Clone()
	if c.Tags == nil {
		c.Tags = map[string]string{}
	}
	change(c)
	v.config = c
	v.mu.Unlock()
	v.writeConfig()
}

// take waits for the VM's turn; give passes it on.
func (v *VM) take(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return errs.InVM(errs.New(errs.State, "another operation on it did not end: %w", ctx.Err()), v.Name)
	}
}

func (v *VM) give() { <-v.turn }

// setState changes the state and writes it to disk.
func (v *VM) setState(s State) {
	v.mu.Lock()
	v.state = s
	v.mu.Unlock()
	v.writeFile("state", s.String())
}

// fail puts the VM in Error, with the reason in the tag `error`.
func (v *VM) fail(err error) {
	v.mu.Lock()
	c := *v.config
	c.Tags = maps.Clone(c.Tags)
	if c.Tags == nil {
		c.Tags = map[string]string{}
	}
	c.Tags["error"] = err.Error()
	v.config = &c
	v.state = Error
	v.failure = FailureOf(err)
	made := v.made
	v.mu.Unlock()
	if made {
		v.writeFile("state", Error.String())
		v.writeConfig()
	}
}

// watch waits for the end of the machine, once per machine.
func (v *VM) watch(m Machine, ended chan struct{}) {
	defer v.manager.watchers.Done()
	select {
	case <-m.Done():
	case <-v.manager.closing:
		return // the process lives on; a later daemon may adopt it
	}
	v.mu.Lock()
	v.machine = nil
	v.mu.Unlock()
	if hook := v.manager.opts.OnEnd; hook != nil {
		hook(v)
	}
	if err := m.Close(); err != nil {
		v.log().Warn("closing a machine that ended", "err", err)
	}
	if v.spacer() != nil { // its network namespace is gone
		v.releaseTaps()
	}
	if s, ok := m.(*silent); ok { // nobody else looks after what it was at
		if err := errors.Join(v.manager.clean(context.Background(), s.i), v.dropNet(context.Background())); err != nil {
			v.log().Warn("removing what a machine that did not answer left", "err", err)
		}
	}
	if err := m.Err(); err != nil {
		v.log().Warn("machine ended by itself", "err", err)
		v.fail(err)
	} else {
		v.setState(Quit)
	}
	close(ended)
}

// releaseTaps lets the ports of a machine that ended go.
func (v *VM) releaseTaps() {
	if names := v.forgetTaps(v.tapNames()); len(names) > 0 {
		if err := v.manager.opts.Network.Release(context.Background(), names...); err != nil {
			v.log().Warn("removing the taps of a machine that ended", "err", err)
		}
	}
}

func (v *VM) log() *slog.Logger { return v.manager.opts.Log.With("vm", v.Name, "id", v.ID) }
