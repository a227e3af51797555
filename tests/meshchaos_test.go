package tests

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/host/lab"
	"minimega/pkg/miniclient"
)

// disasters lets hosts die and parts the network, one disaster after the other,
// while commands run, and takes each back.
func (e *experiment) disasters(random *rand.Rand, rounds int) {
	e.Helper()
	kinds := []func(*rand.Rand) (what string, undo func()){e.kill, e.cut, e.split, e.freeze, e.lossy}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	for _, loop := range []func(chan struct{}){e.askOn, e.allocateOn, e.launchOn} {
		asking.Go(func() { loop(stop) })
	}
	for i := range rounds {
		what, undo := kinds[i%len(kinds)](random)
		e.Logf("disaster %d: %s", i+1, what)
		time.Sleep(time.Duration(1+random.IntN(3)) * time.Second)
		undo()
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
	}
	close(stop)
	asking.Wait()
	e.Logf("%d VLAN aliases were allocated", len(e.aliases)-1)
	if len(e.aliases) < 2 {
		e.Error("none, so that agreement says nothing")
	}
}

// lossSeen is how long it may take until a host that is lost is named, on a
// machine with ten times more to do than it can; alone it takes 2 s.
const lossSeen = 30 * time.Second

// losses lets a daemon die, one freeze, and a host vanish without a word, and
// measures how long a command waits for it, and until all others know.
func (e *experiment) losses() {
	e.Helper()
	const i = 2
	h := e.lab.Hosts[i]
	kill := func(*rand.Rand) (string, func()) {
		d := e.daemon(i)
		d.Kill()
		return h.Name + " dies", func() { e.restart(i, d) }
	}
	vanish := func(*rand.Rand) (string, func()) {
		e.check(e.lab.Split([]*lab.Host{h}))
		return h.Name + " vanishes", func() { e.check(e.lab.Split()) }
	}
	frozen := func(*rand.Rand) (string, func()) {
		pid := e.daemon(i).PID()
		hosttest.Freeze(e, pid)
		return h.Name + " freezes", func() { e.check(syscall.Kill(pid, syscall.SIGCONT)) }
	}
	for _, lose := range []func(*rand.Rand) (string, func()){kill, vanish, frozen} {
		start := time.Now()
		what, undo := lose(nil)
		answers, err := e.do(e.daemon(0), "namespace exp version")
		named := time.Since(start)
		if err == nil || !strings.Contains(err.Error(), "Error ("+h.Name+")") {
			e.Errorf("%s: a command for all says %v", what, err)
		}
		e.complete("version", answers, func(r *miniclient.HostResponse) bool { return strings.HasPrefix(r.Response, "minimega") })
		e.see(len(e.lab.Hosts)-1, slices.Delete(e.all(), i, i+1))
		known := time.Since(start)
		e.Logf("%s: a command names it after %v, all know after %v", what, named, known)
		if max(named, known) > lossSeen {
			e.Errorf("%s: that took longer than %v", what, lossSeen)
		}
		undo()
		e.Logf("all see each other %v after it is back", e.whole())
	}
}

// victim is any host but the first, which asks.
func (e *experiment) victim(random *rand.Rand) int { return 1 + random.IntN(len(e.lab.Hosts)-1) }

// kill ends a daemon without warning; it is started again.
func (e *experiment) kill(random *rand.Rand) (string, func()) {
	i := e.victim(random)
	d := e.daemon(i)
	d.Kill()
	return d.Host.Name + " dies", func() { e.restart(i, d) }
}

// restart starts a daemon again that was killed.
func (e *experiment) restart(i int, d *lab.Daemon) {
	again, err := d.Host.Start(e.Context(), program, e.flags...)
	if err != nil {
		e.Error(err)
		return
	}
	e.mesh.mu.Lock()
	defer e.mesh.mu.Unlock()
	e.daemons[i] = again
}

func (e *experiment) cut(random *rand.Rand) (string, func()) {
	h := e.lab.Hosts[e.victim(random)]
	e.check(h.Cut())
	return h.Name + " is cut off", func() { e.check(h.Join()) }
}

func (e *experiment) split(random *rand.Rand) (string, func()) {
	hosts := slices.Clone(e.lab.Hosts)
	random.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	group := hosts[:2+random.IntN(len(hosts)/2)]
	e.check(e.lab.Split(group))
	return fmt.Sprintf("%v part from the others", names(group)), func() { e.check(e.lab.Split()) }
}

func (e *experiment) lossy(random *rand.Rand) (string, func()) {
	h := e.lab.Hosts[e.victim(random)]
	share := 0.05 + random.Float64()*0.25
	e.check(h.Loss(share))
	return fmt.Sprintf("%s loses %.0f %% of all frames", h.Name, 100*share), func() { e.check(h.Loss(0)) }
}

// freeze stops a daemon without ending it: its connections stay, and nothing
// answers.
func (e *experiment) freeze(random *rand.Rand) (string, func()) {
	d := e.daemon(e.victim(random))
	hosttest.Freeze(e, d.PID())
	return d.Host.Name + " freezes", func() { e.check(syscall.Kill(d.PID(), syscall.SIGCONT)) }
}

func (e *experiment) check(err error) {
	if err != nil {
		e.Error(err)
	}
}

func names(hosts []*lab.Host) (list []string) {
	for _, h := range hosts {
		list = append(list, h.Name)
	}
	slices.Sort(list)
	return list
}

// askOn runs commands on all hosts of the experiment, one after the other. Each
// host must either have done it, as what it says shows, or be named as failed.
func (e *experiment) askOn(stop chan struct{}) {
	var worst time.Duration
	asked, failed := 0, 0
	for i := 0; ; i++ {
		select {
		case <-stop:
			e.Logf("%d commands were asked of all hosts, %d failed on some; the longest took %v", asked, failed, worst)
			return
		default:
		}
		start := time.Now()
		var err error
		switch i % 3 {
		case 0:
			var answers []*miniclient.HostResponse
			answers, err = e.do(e.daemon(0), "namespace exp .columns name vm info")
			e.complete("vm info", answers, func(r *miniclient.HostResponse) bool { return len(r.Tabular) > 0 })
		case 1:
			var answers []*miniclient.HostResponse
			answers, err = e.do(e.daemon(0), "namespace exp version")
			e.complete("version", answers, func(r *miniclient.HostResponse) bool { return strings.HasPrefix(r.Response, "minimega") })
		case 2:
			err = e.tag(i)
		}
		asked++
		if err != nil {
			failed++
		}
		worst = max(worst, time.Since(start))
	}
}

// complete checks that every host of the namespace has answered, or is named.
func (e *experiment) complete(command string, answers []*miniclient.HostResponse, did func(*miniclient.HostResponse) bool) {
	seen := map[string]bool{}
	for _, r := range answers {
		if seen[r.Host] {
			e.Errorf("%s: two answers of %s", command, r.Host)
		}
		seen[r.Host] = true
		if r.Error == "" && !did(r) {
			e.Errorf("%s: %s says nothing: %+v", command, r.Host, r)
		}
	}
	for _, h := range e.lab.Hosts[1:] {
		if !seen[h.Name] {
			e.Errorf("%s: nothing of %s, in %d answers", command, h.Name, len(answers))
		}
	}
}

// tag gives a VM a tag and reads it back: what was reported done must be there.
func (e *experiment) tag(i int) error {
	d, value := e.daemon(0), fmt.Sprint("v", i)
	answers, err := e.do(d, "namespace exp vm tag c1 round "+value)
	if !e.saidBy("c1", answers, func(*miniclient.HostResponse) bool { return true }) {
		return err
	}
	answers, err = e.do(d, "namespace exp vm tag c1 round")
	if !e.saidBy("c1", answers, func(*miniclient.HostResponse) bool { return true }) {
		return err
	}
	if !e.saidBy("c1", answers, func(r *miniclient.HostResponse) bool { return len(r.Tabular) == 1 && r.Tabular[0][1] == value }) {
		e.Errorf("the tag of c1 was set to %s, and is another", value)
	}
	return err
}

// saidBy reports whether a VM's host answered without an error, and so.
func (e *experiment) saidBy(vm string, answers []*miniclient.HostResponse, so func(*miniclient.HostResponse) bool) bool {
	return slices.ContainsFunc(answers, func(r *miniclient.HostResponse) bool { return r.Host == e.vms[vm] && r.Error == "" && so(r) })
}

// launchOn launches VMs, on hosts of the scheduler's choice. Those whose launch
// is reported done must be there in the end.
func (e *experiment) launchOn(stop chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	failed := 0
	for i := 0; ; i++ {
		select {
		case <-stop:
			e.Logf("%d VMs were launched, %d launches failed", len(e.launched), failed)
			return
		case <-tick.C:
		}
		name := fmt.Sprint("l", i)
		if _, err := e.do(e.daemon(0), "namespace exp vm launch container "+name); err != nil {
			failed++
			continue
		}
		e.launched = append(e.launched, name)
	}
}

// allocateOn makes new aliases on any host, so that hosts that do not see each
// other allocate at the same time.
func (e *experiment) allocateOn(stop chan struct{}) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for i := 0; i < 40; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		d := e.daemon(1 + i%(len(e.lab.Hosts)-1))
		alias := fmt.Sprintf("net%d", i)
		tap := fmt.Sprintf("t%d", i)
		if _, err := e.do(d, fmt.Sprintf("namespace exp tap create %s name %s", alias, tap)); err == nil {
			e.mu.Lock()
			e.aliases = append(e.aliases, alias)
			e.mu.Unlock()
		}
	}
}
