package tests

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/host/lab"
	"minimega/pkg/miniclient"
)

var (
	meshHosts  = flag.Int("mesh-hosts", 10, "daemons in TestMesh")
	meshRounds = flag.Int("mesh-rounds", 5, "disasters in TestMesh")
	meshSeed   = flag.Uint64("mesh-seed", 0, "of the disasters in TestMesh; 0 for any")
)

// How long what the tests wait for may take on a busy machine.
const (
	meshPatience = 60 * time.Second // until all is well again
	meshHang     = 40 * time.Second // a command, whatever happens to other hosts
)

// mesh is a set of real daemons on hosts of their own that have one key.
type mesh struct {
	*testing.T
	lab   *lab.Lab
	flags []string
	root  string // file system of containers

	mu      sync.Mutex // guards daemons
	daemons []*lab.Daemon
}

func newMesh(t *testing.T, hosts int) *mesh {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, containers")
	}
	m := &mesh{T: t}
	before := hosttest.Snapshot{}
	t.Cleanup(func() { // after the lab has gone
		if m.lab == nil {
			return
		}
		marks := []string{m.lab.ID}
		for _, h := range m.lab.Hosts {
			sum := sha256.Sum256([]byte(filepath.Join(h.Dir, "base"))) // containers' cgroups are named by it
			marks = append(marks, hex.EncodeToString(sum[:])[:8])
		}
		for _, left := range (hosttest.Machine{Marks: marks}).Left(before) {
			t.Errorf("left behind: %s", left)
		}
	})
	m.lab = lab.Make(t, lab.Options{Hosts: hosts})
	key := filepath.Join(m.lab.Dir, "key")
	if out, err := m.lab.Hosts[0].Command(t.Context(), program, "mesh", "key", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.flags = []string{"-mesh-key", key}
	m.makeRoot()
	daemons, err := m.lab.StartAll(t.Context(), program, func(*lab.Host) []string { return m.flags })
	must(t, err)
	m.daemons = daemons
	t.Cleanup(m.stop)
	return m
}

// stop ends the daemons, all at the same time.
func (m *mesh) stop() {
	var stopping sync.WaitGroup
	for _, d := range m.all() {
		stopping.Go(func() {
			if err := d.Stop(); err != nil {
				m.Errorf("minimega on %s: %v", d.Host.Name, err)
			}
		})
	}
	stopping.Wait()
	if m.Failed() {
		for _, d := range m.all() {
			m.Logf("minimega on %s printed:\n%s", d.Host.Name, d.Output())
		}
	}
}

func (m *mesh) makeRoot() {
	m.Helper()
	guest, err := containerGuest()
	must(m.T, err)
	text, err := os.ReadFile(guest)
	must(m.T, err)
	m.root = filepath.Join(m.lab.Dir, "root")
	must(m.T, errors.Join(os.MkdirAll(filepath.Join(m.root, "tmp"), 0o755), os.WriteFile(filepath.Join(m.root, "guest"), text, 0o755)))
}

func (m *mesh) all() []*lab.Daemon { m.mu.Lock(); defer m.mu.Unlock(); return slices.Clone(m.daemons) }

func (m *mesh) daemon(i int) *lab.Daemon { m.mu.Lock(); defer m.mu.Unlock(); return m.daemons[i] }

// do runs a command on a daemon and gives it up when it hangs.
func (m *mesh) do(d *lab.Daemon, command string) ([]*miniclient.HostResponse, error) {
	ctx, cancel := context.WithTimeout(m.Context(), meshPatience)
	defer cancel()
	start := time.Now()
	answers, err := d.Do(ctx, command)
	if took := time.Since(start); took > meshHang {
		m.Errorf("%s: %s took %v", d.Host.Name, command, took)
	}
	return answers, err
}

func (m *mesh) must(d *lab.Daemon, command string) []*miniclient.HostResponse {
	m.Helper()
	answers, err := m.do(d, command)
	if err != nil {
		m.Fatalf("%s: %s: %v", d.Host.Name, command, err)
	}
	return answers
}

// whole waits until every daemon sees all others, and returns how long that took.
func (m *mesh) whole() time.Duration {
	m.Helper()
	return m.see(len(m.lab.Hosts), m.all())
}

// see waits until daemons see so many hosts, themselves included.
func (m *mesh) see(hosts int, daemons []*lab.Daemon) time.Duration {
	m.Helper()
	start := time.Now()
	for _, d := range daemons {
		m.until(fmt.Sprintf("%s sees %d hosts", d.Host.Name, hosts), func() (string, bool) {
			answers, err := m.do(d, "mesh status")
			if err != nil {
				return err.Error(), false
			}
			size := answers[0].Tabular[0][0]
			return size, size == fmt.Sprint(hosts)
		})
	}
	return time.Since(start)
}

// until waits for something; what it says last is in the error.
func (m *mesh) until(what string, check func() (said string, ok bool)) {
	m.Helper()
	for until := time.Now().Add(meshPatience); ; time.Sleep(10 * time.Millisecond) {
		said, ok := check()
		if ok {
			return
		}
		if time.Now().After(until) {
			m.Fatalf("not in %v: %s; at last: %s", meshPatience, what, said)
		}
	}
}

// TestMesh is an experiment on ten hosts on which hosts die, are cut off and
// part from each other while commands run. No command may hang, none may say
// done for a host that did not; and afterwards all is there and in agreement.
func TestMesh(t *testing.T) {
	m := newMesh(t, *meshHosts)
	t.Logf("%d hosts see each other %v after the last start", *meshHosts, m.whole())
	m.sendsToAll()
	e := m.newExperiment()
	e.checkReach()
	e.losses()
	seed := *meshSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-mesh-seed=%d", seed)
	e.disasters(rand.New(rand.NewPCG(seed, 0)), *meshRounds)
	t.Logf("after the last disaster all see each other again in %v", m.whole())
	e.checkVMs()
	e.checkVLANs()
	e.checkReach()
	m.must(m.daemon(0), "clear namespace exp")
	for _, d := range m.all() {
		for _, r := range m.must(d, "namespace exp vm info summary") {
			if len(r.Tabular) > 0 {
				t.Errorf("%s still knows VMs on %s: %v", d.Host.Name, r.Host, r.Tabular)
			}
		}
	}
}

// sendsToAll measures a small command on all other hosts.
func (m *mesh) sendsToAll() {
	m.Helper()
	var took []time.Duration
	d := m.daemon(0)
	for range 51 {
		start := time.Now()
		answers := m.must(d, "mesh send all version")
		took = append(took, time.Since(start))
		if len(answers) != len(m.lab.Hosts)-1 {
			m.Fatalf("%d hosts answer", len(answers))
		}
	}
	slices.Sort(took)
	m.Logf("mesh send all version: p50 %v, worst %v", took[len(took)/2], took[len(took)-1])
}

// experiment is a namespace on all hosts but the first, which asks.
type experiment struct {
	*mesh
	vms map[string]string // from before the disasters, and the host each is on

	launched []string // VMs whose launch during the disasters was reported done

	mu      sync.Mutex // guards aliases
	aliases []string   // that were allocated
}

// newExperiment launches two containers for each host and some KVM guests.
func (m *mesh) newExperiment() *experiment {
	m.Helper()
	e := &experiment{mesh: m, vms: map[string]string{}}
	e.ask("ns add-hosts all")
	e.ask("vm config filesystem " + m.root)
	e.ask("vm config memory 32")
	e.ask("vm config net office")
	n := 2 * (len(m.lab.Hosts) - 1)
	for i := range n {
		e.ask(fmt.Sprintf("vm config init /guest node 10.5.0.%d", i+1))
		e.ask(fmt.Sprintf("vm launch container c%d", i+1))
	}
	e.ask("vm launch kvm k[1-3]")
	e.ask("vm start all")
	e.aliases = append(e.aliases, "office")
	e.vms = e.where()
	if len(e.vms) != n+3 {
		m.Fatalf("%d VMs: %v", len(e.vms), e.vms)
	}
	perHost := map[string]int{}
	for _, h := range e.vms {
		perHost[h]++
	}
	m.Logf("VMs on hosts: %v", perHost)
	if len(perHost) != len(m.lab.Hosts)-1 {
		m.Errorf("VMs are on %d hosts", len(perHost))
	}
	return e
}

func (e *experiment) ask(command string) []*miniclient.HostResponse {
	e.Helper()
	return e.must(e.daemon(0), "namespace exp "+command)
}

// where tells on which host each VM is, and fails for a name that is there twice.
func (e *experiment) where() map[string]string {
	e.Helper()
	at := map[string]string{}
	for _, r := range e.ask(".columns name,state vm info") {
		for _, row := range r.Tabular {
			if other, twice := at[row[0]]; twice {
				e.Errorf("VM %s is on %s and on %s", row[0], other, r.Host)
			}
			at[row[0]] = r.Host
			if row[1] != "RUNNING" && row[0][0] != 'l' {
				e.Errorf("VM %s on %s is %s", row[0], r.Host, row[1])
			}
		}
	}
	return at
}

// checkVMs: what was launched is there, and what was there before is where it was.
func (e *experiment) checkVMs() {
	e.Helper()
	now := e.where()
	for name, h := range e.vms {
		if now[name] != h {
			e.Errorf("VM %s was on %s, is on %q", name, h, now[name])
		}
	}
	for _, name := range e.launched {
		if now[name] == "" {
			e.Errorf("the launch of VM %s was reported done, but it is nowhere", name)
		}
	}
}

// checkReach: from one host, a container on another is reached.
func (e *experiment) checkReach() {
	e.Helper()
	const from = 1
	h := e.lab.Hosts[from]
	at := slices.IndexFunc(slices.Sorted(maps.Keys(e.vms)), func(name string) bool { return name[0] == 'c' && e.vms[name] != h.Name })
	name := slices.Sorted(maps.Keys(e.vms))[at]
	e.must(e.daemon(from), "namespace exp tap create office ip 10.5.0.200/24 spy")
	e.until(h.Name+" reaches "+name+" on "+e.vms[name], func() (string, bool) {
		out, err := h.Command(e.Context(), "ping", "-c", "1", "-W", "1", "10.5.0."+name[1:]).CombinedOutput()
		return string(out), err == nil
	})
	e.must(e.daemon(from), "namespace exp tap delete spy")
}

// checkVLANs: all hosts have the same numbers for the same aliases, each number
// once, and every alias that was allocated.
func (e *experiment) checkVLANs() {
	e.Helper()
	e.until("hosts agree on VLANs", func() (string, bool) {
		var first string
		for _, d := range e.all() {
			answers, err := e.do(d, "namespace exp vlans")
			if err != nil {
				return err.Error(), false
			}
			var rows []string
			numbers := map[string]bool{}
			for _, row := range answers[0].Tabular {
				rows = append(rows, strings.Join(row, " "))
				numbers[row[1]] = true
			}
			if len(numbers) != len(rows) {
				return d.Host.Name + " has a number twice: " + strings.Join(rows, ", "), false
			}
			slices.Sort(rows)
			text := strings.Join(rows, ", ")
			if first == "" {
				first = text
			}
			if text != first {
				return fmt.Sprintf("%s says %s, the first %s", d.Host.Name, text, first), false
			}
		}
		for _, alias := range e.aliases {
			if !strings.Contains(first, alias+" ") {
				return alias + " is not in " + first, false
			}
		}
		return "", true
	})
}
