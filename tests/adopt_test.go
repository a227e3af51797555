package tests

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/capture"
	"minimega/pkg/miniclient"
	"minimega/pkg/vnc"
)

var (
	adoptRounds = flag.Int("adopt-rounds", 200, "how often TestAdoptAfterKill kills the daemon; 0 for as often as fits in -adopt-time")
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
	w.watchFilms()
	t.Logf("%d kills, %d commands reported done, %d under way when the daemon was killed; %d VMs at the end, seed %d",
		rounds+w.early, w.done, w.doubt, len(w.vms), w.seed)
	if !w.host.daemons[len(w.host.daemons)-1].end() {
		t.Error("the daemon does not end")
	}
}

// known is what was reported of a VM, and what may be besides.
type known struct {
	engine string // one of the engines below
	absent bool   // it may also be gone, or never have been
	nets   int    // interfaces that were plugged in
	// may has the values that a property may have, the one reported last first;
	// a property that is not in it may have any.
	may map[string][]string
}

// now returns the value of a property, if only one is possible.
func (k *known) now(property string) (value string, sure bool) {
	if v := k.may[property]; len(v) == 1 {
		return v[0], true
	}
	return "", false
}

func (k *known) is(property, value string) { k.may[property] = []string{value} }

func (k *known) forget(properties ...string) {
	for _, p := range properties {
		delete(k.may, p)
	}
}

func (k *known) perhaps(property string, values ...string) {
	if old, ok := k.may[property]; ok {
		k.may[property] = append(slices.Clone(old), values...)
	}
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
	films map[string]bool // fb recordings that were reported begun
	taps  map[string]bool // host taps; false: perhaps
	alias map[string]bool
	done  int
	doubt int
	next  int
}

// scratchHost makes a host in a directory of its own. Both go with the test, if
// that did not fail.
func scratchHost(t *testing.T) *host {
	dir, err := os.MkdirTemp("", "mmtest")
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
	return h
}

func newCrashWorld(t *testing.T) *crashWorld {
	h := scratchHost(t)
	dir := h.work
	w := &crashWorld{t: t, host: h, base: filepath.Join(dir, "base"), qemu: *adoptQEMU, seed: *adoptSeed,
		vms: map[string]*known{}, films: map[string]bool{}, taps: map[string]bool{}, alias: map[string]bool{}}
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
	if err := w.furnish(); err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts a daemon, which in some rounds is killed before it is ready.
func (w *crashWorld) start() {
	w.t.Helper()
	w.starts++
	log := filepath.Join(w.host.work, fmt.Sprintf("daemon%d.log", w.starts))
	for w.rand.IntN(4) == 0 {
		out, err := os.OpenFile(log+".early", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			w.t.Fatal(err)
		}
		cmd := w.host.command(program, "-nostdin", "-base", w.base, "-level", "info")
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Start()
		_ = out.Close()
		if err != nil {
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

// checkHolders counts the processes that hold the sockets of captures.
func (w *crashWorld) checkHolders(captures int) {
	holders := func() (n int) {
		for _, pid := range w.host.processes() {
			if capture.Holder(arguments(pid)) != "" {
				n++
			}
		}
		return n
	}
	if !soon(func() bool { return holders() == captures }) {
		w.t.Errorf("%d captures, and %d processes that hold their sockets", captures, holders())
	}
}

// arguments is the command line of a process, nil once it has gone.
func arguments(pid int) []string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
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
	ask := func(command string) *miniclient.Response {
		answer, err := c.Do(ctx, command)
		if err != nil {
			w.t.Fatalf("%s: %v", command, err)
		}
		return answer[0]
	}
	table := func(command string) [][]string { // of all namespaces
		return append(ask("namespace minimega " + command).Resp[0].Tabular, ask("namespace " + machines + " " + command).Resp[0].Tabular...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	rows := table(".columns name,state,uuid,tap,mac,tags,cdrom,pid,id vm info")
	have := properties(rows)
	captures := table(".columns path,status capture")
	for _, row := range captures {
		have.add(strings.TrimSuffix(filepath.Base(row[0]), ".pcapng"), "capture", map[string]string{"running": "yes"}[row[1]])
	}
	for _, row := range table(".columns name,type vnc") {
		have.add(row[0], strings.TrimPrefix(row[1], "record "), "yes")
	}
	for _, row := range table(".columns name,id vm hotplug") {
		have.add(row[0], "usb", map[string]string{"0": "yes"}[row[1]]) // it is the only one
	}
	w.checkVMs(have)
	for name, k := range w.vms {
		if state, _ := k.now("state"); k.engine == machines && state != "QUIT" && state != "ERROR" {
			w.checkMachine(name, k, func(command string) string {
				return ask(fmt.Sprintf("namespace %s vm qmp %s '%s'", machines, name, command)).Resp[0].Response
			})
		}
	}
	w.checkProcesses(rows)
	w.checkHolders(len(captures))
	w.checkAliases(table(".columns alias vlans"))
	w.checkLinks(w.checkTaps(rows, table(".columns tap tap")))
}

// had is what properties the VMs have, by name.
type had map[string]map[string]string

func (h had) add(name, property, value string) {
	if h[name] == nil {
		h[name] = map[string]string{}
	}
	h[name][property] = value
}

var tagT = regexp.MustCompile(`"t":"(\d+)"`)

// properties reads the rows of vm info.
func properties(rows [][]string) had {
	have := had{}
	for _, row := range rows {
		tag := ""
		if m := tagT.FindStringSubmatch(row[5]); m != nil {
			tag = m[1]
		}
		have[row[0]] = map[string]string{"state": row[1], "uuid": row[2], "taps": row[3], "macs": row[4], "tag": tag, "cd": row[6], "tags": row[5],
			"capture": "", "usb": "", "fb": "", "kb": ""}
	}
	return have
}

// checkVMs compares the VMs, and takes over what was in doubt.
func (w *crashWorld) checkVMs(have had) {
	for name, is := range have {
		k := w.vms[name]
		if k == nil {
			w.t.Errorf("%s was not there before, or flushed: %v", name, is)
			continue
		}
		for property, value := range is {
			if property == "tags" { // shown with what is wrong: one may say why
				continue
			}
			if may, ok := k.may[property]; ok && !slices.Contains(may, value) {
				w.t.Errorf("%s of %s is %q, not %q: %v", property, name, value, may, is)
			}
			k.is(property, value)
		}
		k.absent = false
	}
	for name, k := range w.vms {
		if have[name] == nil {
			if !k.absent {
				w.t.Errorf("%s has gone; it was %v", name, k.may)
			}
			delete(w.vms, name)
		}
	}
}

// checkMachine asks a QEMU whether it has what the daemon says.
func (w *crashWorld) checkMachine(name string, k *known, qmp func(command string) string) {
	monitor := func(line string) string {
		return qmp(`{ "execute": "human-monitor-command", "arguments": { "command-line": "` + line + `" } }`)
	}
	macs, _ := k.now("macs")
	network := monitor("info network")
	for _, mac := range strings.Split(strings.Trim(macs, "[]"), ", ") {
		if !strings.Contains(network, "macaddr="+mac) {
			w.t.Errorf("the QEMU of %s has no interface %s: %s", name, mac, network)
		}
	}
	if has, said := strings.Count(network, "macaddr="), strings.Count(macs, ",")+1; has != said {
		w.t.Errorf("the QEMU of %s has %d interfaces, not %d: %s", name, has, said, network)
	}
	usb := monitor("info usb")
	if disk, _ := k.now("usb"); strings.Contains(usb, "hotplug") != (disk == "yes") {
		w.t.Errorf("USB disk of %s: %q, and its QEMU has %s", name, disk, usb)
	}
	drive := "/"
	if image := regexp.MustCompile(`/([ab]\.iso)`).FindStringSubmatch(qmp(`{ "execute": "query-block" }`)); image != nil {
		drive = image[1]
	}
	if may, ok := k.may["drive"]; ok && !slices.Contains(may, drive) {
		w.t.Errorf("the CD in the drive of %s is %q, not %q", name, drive, may)
	}
	if cd, _ := k.now("cd"); filepath.Base("/"+cd) != drive {
		w.t.Errorf("the CD of %s is %q, and QEMU has %q", name, cd, drive)
	}
	k.is("drive", drive)
}

// checkProcesses looks for processes and directories that belong to no VM.
func (w *crashWorld) checkProcesses(rows [][]string) {
	pids, ids, running := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, row := range rows {
		ids[row[8]] = true
		if row[1] != "QUIT" && row[1] != "ERROR" {
			pids[row[7]], running[row[8]] = true, true
		}
	}
	strangers := func() (list []string) {
		for _, pid := range w.host.processes() {
			args := arguments(pid)
			if len(args) == 0 || pids[strconv.Itoa(pid)] {
				continue
			}
			// A container's keeper is told its directory, and nothing else.
			keeps, keeper := strings.CutPrefix(args[len(args)-1], w.base+"/")
			if _, err := strconv.Atoi(keeps); slices.Contains(args, "-qmp") || keeper && err == nil && !running[keeps] {
				list = append(list, fmt.Sprintf("%d: %.300q", pid, args))
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
}

// checkTaps compares the host taps, and returns them and those of the VMs.
func (w *crashWorld) checkTaps(rows, taps [][]string) map[string]bool {
	links := map[string]bool{}
	for _, row := range rows {
		for _, tap := range strings.Split(strings.Trim(row[3], "[]"), ", ") {
			links[tap] = true
		}
	}
	for _, row := range taps {
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

// watchFilms ends the recordings of screens and plays all that were ever begun:
// each is whole.
func (w *crashWorld) watchFilms() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := miniclient.Dial(ctx, w.base)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Do(ctx, "namespace "+machines+" clear vnc"); err != nil {
		w.t.Error(err)
	}
	for path := range w.films {
		if err := play(path); err != nil {
			w.t.Errorf("%s cannot be played to its end: %v", path, err)
		}
	}
}

func play(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		return err
	}
	for _, err := range r.All() {
		if err != nil {
			return err
		}
	}
	return nil
}
