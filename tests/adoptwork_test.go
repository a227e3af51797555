package tests

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"minimega/pkg/miniclient"
)

// What the VMs of a worker are. Machines are in a namespace of that name,
// because the QEMU to use is a setting of the namespace.
const (
	standIns   = "stand-ins"  // QEMUs without devices or guests: many at a time
	machines   = "machines"   // QEMUs, to which things are plugged in
	containers = "containers" // with a file system of one program
)

// crashWorkers says what each worker has.
var crashWorkers = []string{standIns, standIns, machines, containers}

// most is how many VMs a worker has at a time.
var most = map[string]int{standIns: 6, machines: 2, containers: 4}

// addedNets is how many interfaces are plugged into a machine at most.
const addedNets = 3

// furnish makes the files that the VMs use.
func (w *crashWorld) furnish() error {
	for _, cd := range []string{"a.iso", "b.iso"} {
		if err := os.WriteFile(w.file(cd), make([]byte, 1<<20), 0o600); err != nil {
			return err
		}
	}
	path, err := containerGuest()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.file("root/tmp"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(w.file("root/guest"), text, 0o755)
}

func (w *crashWorld) file(name string) string { return filepath.Join(w.host.work, name) }

func (w *crashWorld) number() int { w.mu.Lock(); defer w.mu.Unlock(); w.next++; return w.next }

// busy has commands run for a while and kills the daemon in the midst of them.
func (w *crashWorld) busy(d time.Duration) {
	var workers sync.WaitGroup
	for i, engine := range crashWorkers {
		if engine == standIns && *adoptQEMU != "" {
			engine = machines
		}
		b := &crashWorker{w: w, id: i, engine: engine, r: rand.New(rand.NewPCG(w.rand.Uint64(), uint64(i)))}
		workers.Go(b.work)
	}
	time.Sleep(d)
	crash(w.host)
	workers.Wait()
}

// crashWorker is a client with VMs of its own, of which nobody else knows.
type crashWorker struct {
	w      *crashWorld
	id     int
	engine string
	r      *rand.Rand
	ctx    context.Context
	c      *miniclient.Conn
}

// work runs commands until the daemon has gone.
func (b *crashWorker) work() {
	var cancel context.CancelFunc
	b.ctx, cancel = context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if b.c, err = miniclient.Dial(b.ctx, b.w.base); err != nil {
		return // killed at once
	}
	defer b.c.Close()
	set := []string{"memory 32", "backchannel false", "networks lan 7 other," + strconv.Itoa(20+b.id)}
	namespace := "minimega" // a connection begins where another was last
	if b.engine == machines {
		namespace = machines
	}
	if _, err := b.c.Do(b.ctx, "namespace "+namespace); err != nil {
		return
	}
	switch {
	case b.engine == containers:
		set = append(set, "filesystem "+b.w.file("root"), "init /guest echo")
	case b.engine == standIns || *adoptQEMU != "":
		set = append(set, "qemu "+b.w.qemu)
	}
	for _, field := range set {
		if _, err := b.c.Do(b.ctx, "vm config "+field); err != nil {
			return
		}
	}
	for b.step() {
	}
}

func (b *crashWorker) prefix() string { return fmt.Sprintf("w%d-", b.id) }

// mine lists the names of the worker's VMs.
func (b *crashWorker) mine() (names []string) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(b.w.vms)) {
		if strings.HasPrefix(name, b.prefix()) {
			names = append(names, name)
		}
	}
	return names
}

// step runs one command and reports whether the daemon still lives.
func (b *crashWorker) step() bool {
	names := b.mine()
	switch n := b.r.IntN(10); {
	case n < 3 && len(names) < most[b.engine] || len(names) == 0:
		return b.launch()
	case n == 3:
		return b.tap(fmt.Sprintf("ct%d-%d", b.id, b.r.IntN(3)))
	case n == 4:
		name := fmt.Sprintf("al%d-%d", b.id, b.w.number())
		return b.run("vlans add "+name+" "+strconv.Itoa(1000+b.id*500+b.r.IntN(500)),
			func() { b.w.alias[name] = true }, func() { b.w.alias[name] = false })
	}
	return b.change(names[b.r.IntN(len(names))])
}

func (b *crashWorker) launch() bool {
	name := b.prefix() + strconv.Itoa(b.w.number())
	command := "vm launch kvm "
	if b.engine == containers {
		command = "vm launch container "
	}
	launched := func(absent bool) func() {
		k := &known{engine: b.engine, absent: absent, may: map[string][]string{}}
		k.is("state", "BUILDING")
		for _, p := range []string{"tag", "capture", "usb", "fb", "kb"} {
			k.is(p, "")
		}
		k.is("drive", "/")
		return func() { b.w.vms[name] = k }
	}
	return b.run(command+name, launched(false), launched(true))
}

func (b *crashWorker) tap(name string) bool {
	b.w.mu.Lock()
	there, known := b.w.taps[name]
	b.w.mu.Unlock()
	if known && there {
		return b.run("tap delete "+name, func() { delete(b.w.taps, name) }, func() { b.w.taps[name] = false })
	}
	return b.run("tap create lan name "+name, func() { b.w.taps[name] = true }, func() { b.w.taps[name] = false })
}

// change does something with a VM.
func (b *crashWorker) change(name string) bool {
	b.w.mu.Lock()
	k := b.w.vms[name]
	b.w.mu.Unlock()
	state, _ := k.now("state")
	n := b.r.IntN(7)
	switch {
	case n == 0:
		tag := strconv.Itoa(b.w.number())
		return b.set("vm tag "+name+" t "+tag, k, "tag", tag)
	case n == 1 && b.engine != containers: // their captures end with them
		return b.toggle(name, k, "capture", "capture pcap vm "+name+" 0 "+b.w.file(name+".pcapng"), "capture pcap delete vm "+name)
	case n == 2 && b.engine == containers && k.nets < addedNets && state != "QUIT" && state != "ERROR":
		return b.net(name, k)
	case n < 5 && b.engine == machines && state != "QUIT" && state != "ERROR":
		return b.plug(name, k, state)
	}
	return b.live(name, k, state)
}

// live starts, stops or ends a VM, or forgets one that has ended.
func (b *crashWorker) live(name string, k *known, state string) bool {
	moved := func(state string, and ...string) (done, perhaps func()) {
		also := func() {
			if state == "QUIT" {
				k.forget("usb", "fb", "kb", "drive") // they go with it
			}
			if b.engine == containers {
				k.forget("taps") // and so do these; started again it has others
			}
		}
		return func() { k.is("state", state); also() }, func() { k.perhaps("state", append(and, state)...); also() }
	}
	ended := state == "QUIT" || state == "ERROR"
	switch n := b.r.IntN(5); {
	case state == "ERROR" || ended && n < 3:
		return b.run("vm flush "+name, func() { delete(b.w.vms, name) }, func() { k.absent = true; k.forget("capture") })
	case ended: // launched again, and then started: it may be found between the two
		done, perhaps := moved("RUNNING", "BUILDING")
		return b.run("vm start "+name, done, perhaps)
	case n < 2:
		done, perhaps := moved("QUIT")
		return b.run("vm kill "+name, done, perhaps)
	case state == "RUNNING":
		return b.set("vm stop "+name, k, "state", "PAUSED")
	}
	return b.set("vm start "+name, k, "state", "RUNNING")
}

// plug changes what a machine has, and what is recorded of its screen.
func (b *crashWorker) plug(name string, k *known, state string) bool {
	switch n := b.r.IntN(5); {
	case n == 0:
		return b.disk(name, k)
	case n == 1:
		return b.cd(name, k)
	case n == 2 && k.nets < addedNets:
		return b.net(name, k)
	case state != "BUILDING" && state != "RUNNING":
		return true
	case n == 3:
		path := b.w.file(fmt.Sprintf("%s-%d.fb", name, b.w.number()))
		return b.toggle(name, k, "fb", "vnc record fb "+name+" "+path, "vnc stop fb "+name, func() { b.w.films[path] = true })
	}
	return b.toggle(name, k, "kb", "vnc record kb "+name+" "+b.w.file(name+".kb"), "vnc stop kb "+name)
}

// disk plugs a USB disk in or out.
func (b *crashWorker) disk(name string, k *known) bool {
	image := b.w.file(name + ".img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		b.w.t.Error(err)
		return false
	}
	return b.toggle(name, k, "usb", "vm hotplug add "+name+" "+image, "vm hotplug remove "+name+" all")
}

// cd changes the CD.
func (b *crashWorker) cd(name string, k *known) bool {
	command, cd, between := "vm cdrom eject "+name+" force", "", []string{}
	if which := b.r.IntN(3); which < 2 {
		cd = b.w.file([]string{"a.iso", "b.iso"}[which])
		command, between = "vm cdrom change "+name+" "+cd+" force", []string{""} // the old one may come out first
	}
	return b.run(command, func() { k.is("cd", cd); k.is("drive", filepath.Base("/"+cd)) }, func() {
		k.perhaps("cd", append(between, cd)...)
		k.perhaps("drive", "/", filepath.Base("/"+cd))
	})
}

// net plugs a network interface in.
func (b *crashWorker) net(name string, k *known) bool {
	n := b.w.number()
	mac := fmt.Sprintf("02:00:00:00:%02x:%02x", n>>8&0xff, n&0xff)
	with := func(taken func(string, string)) func() {
		return func() {
			k.nets++
			k.forget("taps")
			if macs, sure := k.now("macs"); sure {
				taken(macs, strings.TrimSuffix(macs, "]")+", "+mac+"]")
			}
		}
	}
	return b.run("vm net add "+name+" lan,"+mac,
		with(func(_, macs string) { k.is("macs", macs) }), with(func(_, macs string) { k.perhaps("macs", macs) }))
}

// toggle begins something if it is not, and ends it if it is.
func (b *crashWorker) toggle(name string, k *known, property, begin, end string, begun ...func()) bool {
	switch now, sure := k.now(property); {
	case !sure: // until the next check
		return true
	case now == "yes":
		return b.set(end, k, property, "")
	}
	return b.run(begin, func() {
		k.is(property, "yes")
		for _, f := range begun {
			f()
		}
	}, func() { k.perhaps(property, "yes") })
}

// set runs a command that gives a property a value, by way of others perhaps.
func (b *crashWorker) set(command string, k *known, property, value string, between ...string) bool {
	return b.run(command, func() { k.is(property, value) }, func() { k.perhaps(property, append(between, value)...) })
}

// run runs a command and notes what it did: done once it was reported, perhaps
// when the daemon was killed meanwhile.
func (b *crashWorker) run(command string, done, perhaps func()) bool {
	answer, err := b.c.Do(b.ctx, command)
	w := b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.done++
		done()
		return true
	}
	if len(answer) > 0 { // refused, which only some may be
		if !strings.Contains(err.Error(), "already in use") {
			w.t.Errorf("%s: %v", command, err)
		}
		return true
	}
	w.doubt++
	perhaps()
	return false
}
