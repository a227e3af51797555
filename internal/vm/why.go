package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/network"
)

// Why explains a VM that does not run, or says that it does; or several that
// wait, or were refused, for the same reason.
type Why struct {
	Name      string    `json:"name"` // of several a range such as web[1-3], "" if they have none
	VMs       int       `json:"vms"`  // how many it is about
	Namespace string    `json:"namespace"`
	Host      string    `json:"host"`
	ID        int       `json:"id"`            // -1 for what is no VM yet
	State     string    `json:"state"`         // QUEUED for what waits; "" for a VM that is none any more, or never was
	When      time.Time `json:"when,omitzero"` // of a launch that failed or was refused
	Failure   *Failure  `json:"failure,omitempty"`
	Words     string    `json:"words,omitempty"` // last ones of the hypervisor
	Findings  []Finding `json:"findings"`
}

// Failure is the error that a VM ended with, or could not be launched for.
type Failure struct {
	errs.Facts
	Text string `json:"text"`
}

// FailureOf keeps an error for those who ask later.
func FailureOf(err error) *Failure { return &Failure{Facts: errs.FactsOf(err), Text: err.Error()} }

// Finding is one thing that was looked at.
type Finding struct {
	About  string `json:"about"` // launch, queue, name, placement, host h, disk, memory, network, space, save
	Good   bool   `json:"good"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Wordy is an Engine whose machines leave their words in a log.
type Wordy interface {
	// Words returns the last of what a machine printed, on one line.
	Words(dir string) string
}

// Why looks for what keeps a VM from running. The error is that there is no
// such VM, and that none was lost.
func (m *Manager) Why(ctx context.Context, namespace, which string) (*Why, error) {
	v, err := m.Find(namespace, which)
	if err != nil {
		if w := m.whyLost(namespace, which); w != nil {
			return w, nil
		}
		return nil, err
	}
	return m.why(ctx, v), nil
}

// WhyAll explains all VMs of a namespace that do not run, and those that were
// lost, by ID.
func (m *Manager) WhyAll(ctx context.Context, namespace string) []Why {
	vms := slices.DeleteFunc(m.List(namespace), func(v *VM) bool { return v.State() == Running })
	list := make([]Why, len(vms))
	slots := make(chan struct{}, whysAtOnce)
	var asking sync.WaitGroup
	for i, v := range vms {
		slots <- struct{}{}
		asking.Go(func() {
			list[i] = *m.why(ctx, v)
			<-slots
		})
	}
	asking.Wait()
	for _, l := range m.Lost() {
		if l.Namespace == namespace {
			list = append(list, *l.why(m.opts.Host, namespace))
		}
	}
	return list
}

// whysAtOnce is how many hypervisors are asked at once: one that hangs must not
// keep the others waiting.
const whysAtOnce = 16

// why looks for what keeps a VM from running.
func (m *Manager) why(ctx context.Context, v *VM) *Why {
	v.mu.Lock()
	state, c, failure := v.state, v.config, v.failure
	v.mu.Unlock()
	w := &Why{Name: v.Name, VMs: 1, Namespace: v.Namespace, Host: m.opts.Host, ID: v.ID, State: state.String(), Findings: []Finding{}}
	if state == Error {
		w.Failure = failure
		if failure == nil && c.Tags["error"] != "" {
			w.Failure = &Failure{Text: c.Tags["error"]}
		}
	}
	if e, ok := m.engines[v.Type].(Wordy); ok && state != Running {
		w.Words = e.Words(v.Dir())
	}
	w.Add(m.whyState(ctx, v, state))
	if state&(Quit|Error) != 0 {
		w.Add(m.Launchable(ctx, v.Type, c)...)
		w.Add(conflict(m.freeFor(v)))
	}
	w.Add(whySave(v))
	w.Add(m.interfaces(v, c)...)
	return w
}

// Launchable says whether this host could launch a VM with that configuration.
func (m *Manager) Launchable(ctx context.Context, t Type, c *Config) []Finding {
	return []Finding{launchable(m.check(ctx, t, c)), m.memory(c), space(m.opts.Base)}
}

// Add appends findings, except for empty ones.
func (w *Why) Add(f ...Finding) {
	for _, f := range f {
		if f.Text != "" {
			w.Findings = append(w.Findings, f)
		}
	}
}

// whyLost explains a VM that was half made when an earlier daemon died.
func (m *Manager) whyLost(namespace, which string) *Why {
	for _, l := range m.Lost() {
		if l.Name == which && (l.Namespace == namespace || l.Namespace == "") || strconv.Itoa(l.ID) == which && l.Namespace == namespace {
			return l.why(m.opts.Host, namespace)
		}
	}
	return nil
}

func (l *Lost) why(host, namespace string) *Why {
	return &Why{Name: l.Name, VMs: 1, Namespace: namespace, Host: host, ID: l.ID,
		Findings: []Finding{{About: "launch", Text: l.Reason + "; what there was of it has been removed", Remedy: "launch it again"}}}
}

// whyState says what the state means.
func (m *Manager) whyState(ctx context.Context, v *VM, s State) Finding {
	f := Finding{About: "state", Text: "it runs", Good: true}
	switch s {
	case Building:
		f = Finding{About: "state", Text: "it was launched and never started", Remedy: "`vm start " + v.Name + "`"}
	case Paused:
		f = Finding{About: "state", Text: "it is paused", Remedy: "`vm start " + v.Name + "`"}
	case Quit:
		f = Finding{About: "state", Text: "it has ended: shut down by its guest, or killed",
			Remedy: "`vm start " + v.Name + "` launches it again, `vm flush " + v.Name + "` forgets it"}
	case Error:
		f = Finding{About: "state", Text: "it failed", Remedy: "`vm start " + v.Name + "` tries again once the cause is gone"}
	}
	if s == Paused || s == Running {
		f = hypervisor(ctx, v, f)
	}
	return f
}

// stopped says what QEMU's run states mean that nobody asked for; see
// RunState in QEMU's qapi/run-state.json.
var stopped = map[string]Finding{
	"io-error":       {Text: "QEMU stopped it: a disk could not be written", Remedy: "make room where its disks lie, then `vm start`"},
	"internal-error": {Text: "QEMU stopped it: the processor did what QEMU or KVM cannot", Remedy: "try another `vm config cpu`, or a host without nested virtualisation"},
	"guest-panicked": {Text: "its guest has panicked", Remedy: "look at its screen; `vm kill` and `vm start` launch it again"},
	"watchdog":       {Text: "its watchdog stopped it", Remedy: "`vm start` runs it on"},
	"suspended":      {Text: "its guest sleeps (suspended to memory)", Remedy: "wake it: press a key on its screen"},
	"postmigrate":    {Text: "it was saved, which left it stopped", Remedy: "`vm start` runs it on"},
	"finish-migrate": {Text: "it is being saved", Remedy: "wait; `vm save` without arguments shows how far it is"},
	"inmigrate":      {Text: "it is loading its saved state", Remedy: "wait"},
}

// hypervisor asks QEMU for the reason of a stop.
func hypervisor(ctx context.Context, v *VM, f Finding) Finding {
	machine, err := v.Machine()
	if err != nil {
		return f
	}
	q, ok := machine.(QMPer)
	if !ok {
		return f
	}
	reply, err := q.QMP(ctx, json.RawMessage(`{"execute": "query-status"}`))
	if err != nil {
		return Finding{About: "state", Text: "its hypervisor does not answer: " + err.Error(), Remedy: "`vm kill " + v.Name + "`"}
	}
	var s struct {
		Return struct{ Status string }
	}
	if json.Unmarshal(reply, &s) == nil {
		if known, ok := stopped[s.Return.Status]; ok {
			known.About = "state"
			return known
		}
	}
	return f
}

// found turns an error into a finding.
func found(about string, err error, good string) Finding {
	if err == nil {
		return Finding{About: about, Good: true, Text: good}
	}
	facts := errs.FactsOf(err)
	return Finding{About: about, Text: err.Error(), Remedy: facts.Remedy}
}

func launchable(err error) Finding {
	return found("launch", err, "its configuration is one that this host can launch")
}

func conflict(err error) Finding { return found("disk", err, "no other VM has its disks") }

// memory compares what a VM wants with what is free.
func (m *Manager) memory(c *Config) Finding {
	free := available()
	if free == 0 || c.Memory <= free {
		return Finding{About: "memory", Good: true, Text: fmt.Sprintf("it wants %d MiB, %d are free", c.Memory, free)}
	}
	_, promised, _, _ := m.Commit()
	return Finding{About: "memory", Text: fmt.Sprintf("it wants %d MiB, %d are free (%d are promised to other VMs)", c.Memory, free, promised),
		Remedy: "end other VMs, or lower `vm config memory`"}
}

// available returns MiB that can be given to a process; 0 when that is unknown.
func available() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		var kib uint64
		if n, _ := fmt.Sscanf(string(line), "MemAvailable: %d kB", &kib); n == 1 {
			return kib >> 10
		}
	}
	return 0
}

// leastSpace is what an instance directory should have at least.
const leastSpace = 64 << 20

func space(dir string) Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Finding{About: "space", Text: err.Error()}
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < leastSpace {
		return Finding{About: "space", Text: fmt.Sprintf("%d MiB are left in %s, where its overlays lie", free>>20, dir), Remedy: "remove files there"}
	}
	return Finding{About: "space", Good: true, Text: fmt.Sprintf("%d MiB are left in %s", free>>20, dir)}
}

// interfaces looks at the VM's end of the network.
func (m *Manager) interfaces(v *VM, c *Config) (list []Finding) {
	ports, _ := m.opts.Network.(interface {
		Port(name string) (network.Port, bool)
	})
	for i, n := range c.Networks {
		f := Finding{About: "network", Good: true}
		switch {
		case n.Tap == "" && v.relaunched():
			f = Finding{About: "network", Text: fmt.Sprintf("interface %d has no tap", i), Remedy: "`vm flush` it and launch it again"}
		case n.Tap == "":
			continue
		case n.VLAN == Disconnected:
			f.Text = fmt.Sprintf("interface %d (%s) is disconnected", i, n.Tap)
			f.Remedy = fmt.Sprintf("`vm net connect %s %d <vlan>`", v.Name, i)
		default:
			f.Text = fmt.Sprintf("interface %d (%s) is on VLAN %s of %s", i, n.Tap, m.opts.VLANName(v.Namespace, n.VLAN), n.Bridge)
		}
		if ports != nil {
			if _, ok := ports.Port(n.Tap); !ok {
				f = Finding{About: "network", Text: fmt.Sprintf("the tap %s of interface %d has gone", n.Tap, i), Remedy: "`vm flush` it and launch it again"}
			}
		}
		list = append(list, f)
	}
	return list
}
