package tests

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"minimega/internal/capture"
	"minimega/pkg/miniclient"
)

var (
	adoptRounds = flag.Int("adopt-rounds", 0, "how often TestAdoptAfterKill kills the daemon; 0 for as often as fits in -adopt-time")
	adoptTime   = flag.Duration("adopt-time", 40*time.Second, "how long TestAdoptAfterKill goes on when -adopt-rounds is 0")
	adoptSeed   = flag.Uint64("adopt-seed", 0, "seed of TestAdoptAfterKill; 0 for another each time")
	adoptQEMU   = flag.String("adopt-qemu", "", "QEMU for TestAdoptAfterKill; a stand-in without guests when empty")
)

// A daemon is killed at random moments of a busy script, again and again, some
// times while it takes over from the one before. Afterwards all that had been
// reported done is as it was reported, and the machine has nothing else.
func TestAdoptAfterKill(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, taps")
	}
	w := newCrashWorld(t)
	deadline := time.Now().Add(*adoptTime)
	rounds := 0
	for ; rounds < *adoptRounds || *adoptRounds == 0 && (rounds < 10 || time.Now().Before(deadline)); rounds++ {
		w.start()
		w.check()
		if t.Failed() {
			t.Fatalf("in round %d with -adopt-seed %d", rounds, w.seed)
		}
		w.busy(time.Duration(w.rand.IntN(400)) * time.Millisecond)
	}
	w.start()
	w.check()
	t.Logf("%d kills, %d commands reported done, %d under way when the daemon was killed; %d VMs at the end, seed %d",
		rounds+w.early, w.done, w.doubt, len(w.vms), w.seed)
	if !w.host.daemons[len(w.host.daemons)-1].end() {
		t.Error("the daemon does not end")
	}
}

// known is what was reported of a VM, and what may be besides.
type known struct {
	states []string // any of these; the first is the one reported
	absent bool     // it may also be gone, or never have been
	uuid   string
	taps   string
	macs   string
	tag    string
	// captured says whether its first interface is captured: "yes", "perhaps" or "".
	captured string
}

// crashWorld is a host with one daemon, and a picture of what that reported.
type crashWorld struct {
	t      *testing.T
	host   *host
	base   string
	qemu   string
	seed   uint64
	rand   *rand.Rand // of the test's own goroutine
	starts int
	early  int // kills before the socket was there

	mu    sync.Mutex // guards the fields below
	vms   map[string]*known
	taps  map[string]bool // host taps; false: perhaps
	alias map[string]bool
	done  int
	doubt int
	next  int
}

const crashWorkers = 4

func newCrashWorld(t *testing.T) *crashWorld {
	dir, err := os.MkdirTemp("", "mmadopt")
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, left := range h.close() {
			t.Errorf("left behind: %s", left)
		}
		if t.Failed() {
			t.Logf("see %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	w := &crashWorld{t: t, host: h, base: filepath.Join(dir, "base"), qemu: *adoptQEMU, seed: *adoptSeed,
		vms: map[string]*known{}, taps: map[string]bool{}, alias: map[string]bool{}}
	if w.seed == 0 {
		w.seed = uint64(time.Now().UnixNano())
	}
	w.rand = rand.New(rand.NewPCG(w.seed, 1))
	if w.qemu == "" {
		w.qemu = filepath.Join(dir, "fakeqemu")
		build := exec.Command("go", "build", "-o", w.qemu, "minimega/bench/fakeqemu")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building fakeqemu: %v\n%s", err, out)
		}
	}
	return w
}

// start starts a daemon, which in some rounds is killed before it is ready.
func (w *crashWorld) start() {
	w.t.Helper()
	w.starts++
	log := filepath.Join(w.host.work, fmt.Sprintf("daemon%d.log", w.starts))
	for w.rand.IntN(4) == 0 {
		cmd := w.host.command(program, "-nostdin", "-base", w.base)
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(time.Duration(w.rand.IntN(150)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.early++
	}
	if err := w.host.start(w.base, log, w.host.work, []string{"-level", "info"}); err != nil {
		text, _ := os.ReadFile(log)
		w.t.Fatalf("%v\n%s", err, text)
	}
}

// busy has commands run for a while and kills the daemon in the midst of them.
func (w *crashWorld) busy(d time.Duration) {
	var workers sync.WaitGroup
	for i := range crashWorkers {
		r := rand.New(rand.NewPCG(w.rand.Uint64(), uint64(i)))
		workers.Go(func() { w.work(i, r) })
	}
	time.Sleep(d)
	last := w.host.daemons[len(w.host.daemons)-1]
	_ = last.process.Signal(syscall.SIGKILL)
	<-last.ended
	workers.Wait()
}

// work runs commands of its own VMs until the daemon has gone.
func (w *crashWorld) work(id int, r *rand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := miniclient.Dial(ctx, w.base)
	if err != nil {
		return // killed at once
	}
	defer c.Close()
	for _, set := range []string{"vm config qemu " + w.qemu, "vm config memory 32", "vm config backchannel false",
		"vm config networks lan 7 other," + strconv.Itoa(20+id)} {
		if _, err := c.Do(ctx, set); err != nil {
			return
		}
	}
	for w.step(ctx, c, id, r) {
	}
}

// step runs one command and reports whether the daemon still lives.
func (w *crashWorld) step(ctx context.Context, c *miniclient.Conn, id int, r *rand.Rand) bool {
	mine := fmt.Sprintf("w%d-", id)
	switch r.IntN(10) {
	case 0, 1, 2:
		if w.count(mine) < 6 {
			return w.launch(ctx, c, mine)
		}
	case 3:
		name := fmt.Sprintf("ct%d-%d", id, r.IntN(3))
		return w.tap(ctx, c, name)
	case 4:
		name := fmt.Sprintf("al%d-%d", id, w.number())
		return w.run(ctx, c, "vlans add "+name+" "+strconv.Itoa(1000+id*500+r.IntN(500)),
			func() { w.alias[name] = true }, func() { w.alias[name] = false })
	}
	return w.change(ctx, c, mine, r)
}

func (w *crashWorld) number() int { w.mu.Lock(); defer w.mu.Unlock(); w.next++; return w.next }

func (w *crashWorld) count(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.vms {
		if strings.HasPrefix(name, prefix) {
			n++
		}
	}
	return n
}

func (w *crashWorld) launch(ctx context.Context, c *miniclient.Conn, mine string) bool {
	name := mine + strconv.Itoa(w.number())
	return w.run(ctx, c, "vm launch kvm "+name,
		func() { w.vms[name] = &known{states: []string{"BUILDING"}} },
		func() { w.vms[name] = &known{states: []string{"BUILDING"}, absent: true} })
}

func (w *crashWorld) tap(ctx context.Context, c *miniclient.Conn, name string) bool {
	w.mu.Lock()
	there, known := w.taps[name]
	w.mu.Unlock()
	if known && there {
		return w.run(ctx, c, "tap delete "+name, func() { delete(w.taps, name) }, func() { w.taps[name] = false })
	}
	return w.run(ctx, c, "tap create lan name "+name, func() { w.taps[name] = true }, func() { w.taps[name] = false })
}

// change does something with one of the worker's VMs.
func (w *crashWorld) change(ctx context.Context, c *miniclient.Conn, mine string, r *rand.Rand) bool {
	w.mu.Lock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.vms)) {
		if strings.HasPrefix(name, mine) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		w.mu.Unlock()
		return w.launch(ctx, c, mine)
	}
	name := names[r.IntN(len(names))]
	k := w.vms[name]
	state := k.states[0]
	w.mu.Unlock()
	to := func(verb, state string, and ...string) bool {
		return w.run(ctx, c, "vm "+verb+" "+name, func() { k.states = []string{state} }, func() { k.states = append(append(k.states, state), and...) })
	}
	switch n := r.IntN(7); {
	case n == 6:
		return w.capture(ctx, c, name, k)
	case n == 0:
		tag := strconv.Itoa(w.number())
		old := k.tag
		return w.run(ctx, c, "vm tag "+name+" t "+tag, func() { k.tag = tag }, func() { k.tag = old + "|" + tag })
	case state == "QUIT" && n < 4:
		return w.run(ctx, c, "vm flush "+name, func() { delete(w.vms, name) }, func() { k.absent, k.captured = true, "perhaps" })
	case state == "QUIT": // launched again, and then started: it may be found between the two
		return to("start", "RUNNING", "BUILDING")
	case n < 3:
		return to("kill", "QUIT")
	case state == "RUNNING":
		return to("stop", "PAUSED")
	}
	return to("start", "RUNNING")
}

// capture starts or ends the capture of a VM.
func (w *crashWorld) capture(ctx context.Context, c *miniclient.Conn, name string, k *known) bool {
	perhaps := func() { k.captured = "perhaps" }
	if k.captured != "" {
		return w.run(ctx, c, "capture pcap delete vm "+name, func() { k.captured = "" }, perhaps)
	}
	path := filepath.Join(w.host.work, name+".pcapng")
	return w.run(ctx, c, "capture pcap vm "+name+" 0 "+path, func() { k.captured = "yes" }, perhaps)
}

// checkCaptures compares the captures, and the processes that hold their sockets.
func (w *crashWorld) checkCaptures(rows [][]string) {
	running := map[string]bool{}
	for _, row := range rows {
		name := strings.TrimSuffix(filepath.Base(row[0]), ".pcapng")
		running[name] = true
		if k := w.vms[name]; k == nil || k.captured == "" || row[1] != "running" {
			w.t.Errorf("capture %v, which was not there before", row)
		}
	}
	for name, k := range w.vms {
		switch {
		case running[name]:
			k.captured = "yes"
		case k.captured == "yes":
			w.t.Errorf("the capture of %s has gone", name)
		default:
			k.captured = ""
		}
	}
	holders := func() (n int) {
		for _, pid := range w.host.processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if capture.Holder(strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")) != "" {
				n++
			}
		}
		return n
	}
	if !soon(func() bool { return holders() == len(rows) }) {
		w.t.Errorf("%d captures, and %d processes that hold their sockets", len(rows), holders())
	}
}

// soon waits for what the kernel, or the daemon in the background, is about to do.
func soon(ok func() bool) bool {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// run runs a command and notes what it did: done once it was reported, perhaps
// when the daemon was killed meanwhile.
func (w *crashWorld) run(ctx context.Context, c *miniclient.Conn, command string, done, perhaps func()) bool {
	answer, err := c.Do(ctx, command)
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

// check compares what there is with what was reported.
func (w *crashWorld) check() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := miniclient.Dial(ctx, w.base)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	table := func(command string) [][]string {
		answer, err := c.Do(ctx, command)
		if err != nil {
			w.t.Fatalf("%s: %v", command, err)
		}
		return answer[0].Resp[0].Tabular
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	links := w.checkVMs(table(".columns name,state,uuid,tap,mac,tags,pid,id vm info"))
	for _, row := range table(".columns tap tap") {
		links[row[0]] = true
		if _, ok := w.taps[row[0]]; !ok {
			w.t.Errorf("host tap %s was not there before", row[0])
		}
		w.taps[row[0]] = true
	}
	for name, sure := range w.taps {
		if !links[name] {
			if sure {
				w.t.Errorf("host tap %s has gone", name)
			}
			delete(w.taps, name)
		}
	}
	w.checkCaptures(table(".columns path,status capture"))
	w.checkAliases(table(".columns alias vlans"))
	w.checkLinks(links)
}

var tagT = regexp.MustCompile(`"t":"(\d+)"`)

// checkVMs compares the VMs and their processes and directories, takes over
// what was in doubt, and returns the taps that they have.
func (w *crashWorld) checkVMs(rows [][]string) (links map[string]bool) {
	links = map[string]bool{}
	seen, pids, ids := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		name, state := row[0], row[1]
		seen[name] = true
		k := w.vms[name]
		if k == nil {
			w.t.Errorf("%s was not there before, or flushed: %v", name, row)
			continue
		}
		if !slices.Contains(k.states, state) {
			w.t.Errorf("%s is %s, not %v: %v", name, state, k.states, row)
		}
		tag := ""
		if m := tagT.FindStringSubmatch(row[5]); m != nil {
			tag = m[1]
		}
		if k.uuid != "" && (row[2] != k.uuid || row[3] != k.taps || row[4] != k.macs) || !slices.Contains(strings.Split(k.tag, "|"), tag) {
			w.t.Errorf("%s was %+v and is %v", name, *k, row)
		}
		*k = known{states: []string{state}, uuid: row[2], taps: row[3], macs: row[4], tag: tag, captured: k.captured}
		if state != "QUIT" {
			pids[row[6]] = true
		}
		ids[row[7]] = true
		for _, tap := range strings.Split(strings.Trim(row[3], "[]"), ", ") {
			links[tap] = true
		}
	}
	for name, k := range w.vms {
		if !seen[name] {
			if !k.absent {
				w.t.Errorf("%s has gone; it was %v", name, k.states)
			}
			delete(w.vms, name)
		}
	}
	strangers := func() (list []string) {
		for _, pid := range w.host.processes() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.Contains(string(line), "-qmp") && !pids[strconv.Itoa(pid)] {
				list = append(list, fmt.Sprintf("%d: %.300q", pid, line))
			}
		}
		return list
	}
	if !soon(func() bool { return len(strangers()) == 0 }) {
		w.t.Errorf("processes that belong to no VM: %v", strangers())
	}
	entries, err := os.ReadDir(w.base)
	if err != nil {
		w.t.Error(err)
	}
	for _, e := range entries {
		_, err := strconv.Atoi(e.Name())
		if err == nil && !ids[e.Name()] || temporary.MatchString(e.Name()) && w.stays(e.Name()) {
			w.t.Errorf("%s was left in the base directory", e.Name())
		}
	}
	return links
}

// stays reports whether a file is still there after the moment that the daemon
// needs to write it.
func (w *crashWorld) stays(name string) bool {
	return !soon(func() bool {
		_, err := os.Lstat(filepath.Join(w.base, name))
		return err != nil
	})
}

var temporary = regexp.MustCompile(`^\..*\.[0-9]+$`)

func (w *crashWorld) checkAliases(rows [][]string) {
	have := map[string]bool{}
	for _, row := range rows {
		have[row[0]] = true
		if _, ok := w.alias[row[0]]; !ok && row[0] != "lan" {
			w.t.Errorf("alias %s was not there before", row[0])
		}
	}
	for name, sure := range w.alias {
		if sure && !have[name] {
			w.t.Errorf("alias %s has gone", name)
		}
		w.alias[name] = have[name]
		if !have[name] {
			delete(w.alias, name)
		}
	}
}

// checkLinks compares the interfaces with the taps that there are. Bridges must
// have ports.
func (w *crashWorld) checkLinks(taps map[string]bool) {
	out, err := w.host.command("ip", "-br", "link").Output()
	if err != nil {
		w.t.Error(err)
	}
	masters, err := w.host.command("ip", "-o", "link").Output()
	if err != nil {
		w.t.Error(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, peer, _ := strings.Cut(strings.Fields(line)[0], "@")
		switch {
		case w.host.before["link "+name]:
		case taps[name]:
			delete(taps, name)
		case peer != "" && strings.HasPrefix(name, "mm"): // the end of a host tap on the bridge
		case strings.HasPrefix(name, "mm") && strings.Contains(string(masters), " master "+name+" "):
		default:
			w.t.Errorf("interface %s belongs to nothing", line)
		}
	}
	for name := range taps {
		if name != "" {
			w.t.Errorf("interface %s has gone", name)
		}
	}
}
