package tests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/host/lab"
)

// group is several hosts with a daemon each, in one mesh.
type group struct {
	t       *testing.T
	lab     *lab.Lab
	daemons []*lab.Daemon
	key     string
	root    string // a file system for containers
}

// newGroup makes a group whose daemons see each other.
func newGroup(t *testing.T, hosts int) *group {
	t.Helper()
	return newGroupOf(t, hosts, func(*lab.Host) []string { return nil })
}

// newGroupOf makes a group, preparing each host, and with flags for its daemon.
func newGroupOf(t *testing.T, hosts int, prepare func(*lab.Host) (flags []string)) *group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	l := lab.Make(t, lab.Options{Hosts: hosts})
	hosttest.Machine{Marks: []string{l.ID}}.Check(t)
	g := &group{t: t, lab: l, key: filepath.Join(l.Dir, "key"), root: filepath.Join(l.Dir, "root")}
	for _, args := range [][]string{{"mesh", "key", g.key}, {"guest", "rootfs", "-o", g.root}} {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("minimega %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	var own [][]string
	for _, h := range l.Hosts {
		own = append(own, prepare(h))
	}
	var err error
	g.daemons, err = l.StartAll(t.Context(), program, func(h *lab.Host) []string { return append(g.flags(), own[slices.Index(l.Hosts, h)]...) })
	if err != nil {
		t.Fatal(err)
	}
	lab.StopAfter(t, g.daemons...)
	g.meet()
	return g
}

func (g *group) flags() []string { return []string{"-mesh-key", g.key, "-level", "info"} }

// meet waits until every running daemon knows all others.
func (g *group) meet() {
	g.t.Helper()
	g.meetAs("size", func(n int) string { return fmt.Sprint(": ", n) })
}

// link waits until every running daemon knows all others, and is linked with
// each: what goes by way of another host is lost with that.
func (g *group) link() {
	g.t.Helper()
	g.meetAs("size,peers", func(n int) string { return fmt.Sprintf(": %d %d", n, n-1) })
}

func (g *group) meetAs(columns string, want func(running int) string) {
	g.t.Helper()
	running := 0
	for _, d := range g.daemons {
		if d.Running() {
			running++
		}
	}
	for i, d := range g.daemons {
		if d.Running() {
			g.await(i, want(running), ".columns "+columns+" mesh status")
		}
	}
}

// commandTime bounds every command of a test: none may hang.
const commandTime = 60 * time.Second

// run runs a command on a host and returns what is answered: a line for each
// text, error (with !) and row, each after the name of its host.
func (g *group) run(n int, format string, args ...any) string {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), commandTime)
	defer cancel()
	line := fmt.Sprintf(format, args...)
	resps, err := g.daemons[n].Do(ctx, line)
	if err != nil && len(resps) == 0 {
		g.t.Fatalf("%s: %s: %v\n%s", g.daemons[n].Host.Name, line, err, g.daemons[n].Output())
	}
	var out []string
	for _, r := range resps {
		if r.Error != "" {
			out = append(out, r.Host+": !"+r.Error)
		}
		if r.Response != "" {
			out = append(out, r.Host+": "+r.Response)
		}
		for _, row := range r.Tabular {
			out = append(out, r.Host+": "+strings.Join(row, " "))
		}
	}
	return strings.Join(out, "\n")
}

// want runs a command on a host and compares what is answered.
func (g *group) want(n int, want, format string, args ...any) {
	g.t.Helper()
	if got := g.run(n, format, args...); got != want {
		g.t.Errorf("%s: %s:\n%s\nwant\n%s", g.daemons[n].Host.Name, fmt.Sprintf(format, args...), got, want)
	}
}

// do runs commands on a host that answer nothing.
func (g *group) do(n int, lines ...string) {
	g.t.Helper()
	for _, line := range lines {
		g.want(n, "", "%s", line)
	}
}

// await runs a command again and again until its answer contains a text.
func (g *group) await(n int, want, line string) {
	g.t.Helper()
	var got string
	for end := time.Now().Add(commandTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = g.run(n, "%s", line); strings.Contains(got, want) {
			return
		}
	}
	g.t.Fatalf("%s: %s never shows %q, but\n%s\n%s", g.daemons[n].Host.Name, line, want, got, g.daemons[n].Output())
}

// ping pings an address from a host and reports whether there was an answer.
func (g *group) ping(n int, args ...string) error {
	out, err := g.daemons[n].Host.Command(g.t.Context(), "ping", append([]string{"-c", "3", "-i", "0.2", "-w", "10"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ping %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// An experiment over three hosts is used as one on a single host is.
func TestCluster(t *testing.T) {
	g := newGroup(t, 3)
	g.want(0, "n1: n[2-3]", "mesh list all")
	g.do(0, "namespace lab", "vm config filesystem "+g.root, "vm config memory 64", "vm config net lan")
	g.want(0, "n1: n[2-3]", "ns hosts")
	g.do(0, "vm launch container a[1-4]")
	g.want(0, "n2: a1 BUILDING [lan (101)]\nn2: a3 BUILDING [lan (101)]\nn3: a2 BUILDING [lan (101)]\nn3: a4 BUILDING [lan (101)]",
		".columns name,state,vlan vm info")
	g.want(0, "n1: !vm already exists with name `a4`", "vm launch container a4")
	g.want(0, "n1: !host is not in namespace: n1", "vm config schedule n1")

	// A dry run and what is changed by hand decide.
	g.do(0, "ns queueing true", "vm launch container b[1-2]")
	g.want(0, "n1: b1 n2\nn1: b2 n3", "ns schedule dry-run")
	g.do(0, "ns schedule mv b1 n3", "ns queueing false", "vm launch")
	g.want(0, "n3: b1\nn3: b2", ".columns name .filter name~b vm info")

	g.do(0, "ns queueing true", "vm config coschedule 3", "vm launch container full")
	g.run(0, "ns schedule dry-run")
	g.do(0, "ns schedule mv full n3", "ns queueing false")
	g.want(0, "n1: !too many VMs scheduled on n3 for coschedule requirement of 3", "vm launch")
	for _, part := range []string{"n1: full is QUEUED on n1", "failure of the last launch (", "host n3: it has 4 VMs, and coschedule allows 4 (raise `vm config coschedule`"} {
		if got := g.run(0, "vm why full"); !strings.Contains(got, part) {
			t.Errorf("%q is missing: %s", part, got)
		}
	}
	g.do(0, "ns flush", "clear vm config coschedule")

	// A target may be anywhere; one that is nowhere is one error.
	g.do(0, "vm start all", "vm stop a2")
	g.want(0, "n3: a2", ".columns name .filter state=paused vm info")
	g.want(0, "n1: !vm not found: nobody", "vm start nobody")
	g.want(0, "n1: !vm not found: nobody", "vm why nobody")
	g.want(0, "n3: a2 is PAUSED on n3: state: it is paused (`vm start a2`)", "vm why")
	g.want(0, "n2: !vm is already running", "vm start a1")

	begin := "namespace lab vm stop a"
	if got, err := g.daemons[0].Conn().Suggest(t.Context(), begin); err != nil ||
		!slices.Equal(got, []string{begin + "1", begin + "2", begin + "3", begin + "4", begin + "ll"}) {
		t.Errorf("completions: %q, %v", got, err)
	}

	// Where a limit refuses, the error says what would fit.
	g.do(0, "ns limit vms 4")
	if got := g.run(0, "vm launch container c[1-9]"); !strings.Contains(got, "!") || !strings.Contains(got, "ns limit vms") {
		t.Errorf("nine more VMs on two hosts of four each: %s", got)
	}
	g.want(0, "", ".columns name .filter name~c vm info")
	if got := g.run(0, "vm why c9"); !strings.HasPrefix(got, "n1: c9: not launched on n1 (") || !strings.Contains(got, "ns limit vms") {
		t.Errorf("one of them: %s", got)
	}

	// Only what is sent runs elsewhere, and only there.
	g.do(0, ".env MM_WHERE n1")
	g.want(0, "n2: [n1]\nn3: [n1]", "ns run echo [$MM_WHERE]")
	g.want(0, "n2: []", "mesh send n2 echo [$MM_WHERE]")
	g.want(0, "n3: !vm not found: a1", "namespace lab mesh send n3 vm start a1")
	g.want(0, "n1: !cannot run `mesh send n3 version` via meshage", "mesh send n2 mesh send n3 version")
	if got := g.run(0, "mesh send n[2-4] echo x"); !strings.HasPrefix(got, "n2: x\nn3: x\nn4: !the host is not in the mesh") {
		t.Errorf("a range with a host that is none: %s", got)
	}

	// A bridge is joined with those on the other hosts, and parted again.
	g.do(0, "ns add-hosts localhost", "ns bridge wire vxlan")
	for n := range 3 {
		if got := g.run(n, ".columns tunnels .filter bridge=wire bridge"); len(strings.Fields(got)) != 3 {
			t.Errorf("n%d has the tunnels %s", n+1, got)
		}
	}
	g.do(0, "ns del-bridge wire")
	for n := range 3 {
		g.want(n, fmt.Sprintf("n%d: []", n+1), ".columns tunnels .filter bridge=wire bridge")
		g.do(n, "bridge destroy wire")
	}
	g.want(0, "n1: !bridge is not associated with namespace", "ns del-bridge wire")

	// What ends on one host ends on all.
	g.do(0, "clear namespace lab")
	for n := range 3 {
		g.want(n, "", "namespace lab vm info")
		g.want(n, "", "namespace lab vlans")
	}
}

// What the commands about the mesh, and those that show several hosts, say.
func TestMeshCommands(t *testing.T) {
	g := newGroup(t, 3)
	g.want(0, "n1: auto", "mesh degree")
	g.do(0, "mesh degree 1")
	g.want(0, "n1: 1", "mesh degree")
	g.want(0, "n1: !strconv.ParseUint: parsing \"x\": invalid syntax (a number of peers, or auto)", "mesh degree x")
	g.do(0, "mesh degree auto")
	g.want(0, "n1: unlimited", "mesh timeout")
	g.do(0, "mesh timeout 90")
	g.want(0, "n1: 1m30s", "mesh timeout")
	g.want(0, "n1: !invalid timeout: `-1` (seconds, 0 for any time)", "mesh timeout -1")
	g.do(0, "mesh timeout 0")
	g.want(0, "n1: unlimited", "mesh timeout")

	// A link is drawn once, whoever made it.
	g.do(0, "mesh dial n2", "mesh dial n3")
	g.await(0, "n1: n1\n |--n2\n |--n3", "mesh list")
	g.do(0, "mesh dot mesh.dot")
	drawn := strings.Fields(g.read(0, "mesh.dot"))
	for _, want := range []string{`graph mesh { "n1"; "n1" -- "n2"; "n1" -- "n3"; "n2"; "n3"; }`, `graph mesh { "n1"; "n1" -- "n2"; "n1" -- "n3"; "n2"; "n2" -- "n3"; "n3"; }`} {
		if strings.Join(drawn, " ") == want {
			drawn = nil
		}
	}
	if drawn != nil {
		t.Errorf("mesh dot: %s", drawn)
	}

	// Who hung up is not linked again until it is told to.
	g.want(0, "n1: !hang up: n9: no such node in the mesh: did you mean n1, n2, n3?", "mesh hangup n9")
	g.do(0, "mesh hangup n2")
	g.want(0, "n1: n3", "mesh list peers")
	g.do(0, "mesh dial n2")
	g.await(0, "n1: n[2-3]", "mesh list peers")
	g.meet()

	g.do(0, "namespace lab", "vm config filesystem "+g.root, "vm config memory 64", "vm config net lan", "vm launch container a[1-2]")
	g.want(0, "n2: n2\nn3: n3", "host name")
	g.want(0, "n2: 1 64\nn3: 1 64", ".columns vms,memcommit host")
	g.do(0, "viz lab.dot")
	want := `graph minimega {
size="8,11";
overlap=false;
"n2:a1:0:[]:[]" [style=filled, fillcolor=yellow];
"n2:a1:0:[]:[]" -- 101;
"n3:a2:0:[]:[]" [style=filled, fillcolor=yellow];
"n3:a2:0:[]:[]" -- 101;
}
`
	if got := g.read(0, "lab.dot"); got != want {
		t.Errorf("viz:\n%s", got)
	}
	g.do(0, "clear all")
}

// read returns what is in a file of a host's files directory.
func (g *group) read(n int, name string) string {
	g.t.Helper()
	content, err := os.ReadFile(g.file(n, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return string(content)
}

// VMs of a namespace on different hosts are on one network, without a switch
// that knows of it, with frames as large as guests have them; those of others
// are not.
func TestOverlay(t *testing.T) {
	g := newGroup(t, 3)
	g.do(0, "namespace lab", "vm config filesystem "+g.root, "vm config memory 64", "vm config net lan")
	for n := 2; n <= 3; n++ {
		g.do(0, fmt.Sprintf("vm config schedule n%d", n), fmt.Sprintf("vm config init /init ip=10.1.0.%d/24", n), fmt.Sprintf("vm launch container v%d", n))
	}
	g.do(0, "namespace other", "vm config filesystem "+g.root, "vm config memory 64", "vm config net lan", "vm config schedule n3",
		"vm config init /init ip=10.1.0.9/24", "vm launch container v9", "vm start all", "namespace lab", "vm start all")
	if got := g.run(0, "tap create lan ip 10.1.0.1/24"); !strings.HasPrefix(got, "n1: mega_tap") {
		t.Fatalf("tap: %s", got)
	}
	for _, args := range [][]string{{"10.1.0.2"}, {"10.1.0.3"}, {"-s", "1472", "-M", "do", "10.1.0.3"}} {
		if err := g.ping(0, args...); err != nil {
			t.Error(err)
		}
	}
	if g.ping(0, "10.1.0.9") == nil {
		t.Error("the VM of another namespace answers")
	}

	// A daemon that is killed and started again changes nothing for the VMs, and
	// knows all.
	g.do(1, "log ring 500")
	g.do(0, "log mesh n2")
	g.want(0, "n1: sending all logs to node n2", "log mesh")
	g.daemons[2].Kill()
	g.await(1, "n1: host left the mesh", "log ring") // n1 tells n2
	g.do(0, "clear log mesh")
	g.await(0, "n3: !the host is not in the mesh", "vm info")
	if got := g.run(0, "ns bridge wire vxlan"); !strings.Contains(got, "host n3: ") {
		t.Errorf("ns bridge without n3: %s", got)
	}
	if got := g.run(1, ".columns bridge bridge"); strings.Contains(got, "wire") {
		t.Errorf("ns bridge that failed left: %s", got)
	}
	if err := g.ping(0, "10.1.0.3"); err != nil {
		t.Errorf("without a daemon: %v", err)
	}
	d, err := g.daemons[2].Host.Start(t.Context(), program, g.flags()...)
	if err != nil {
		t.Fatal(err)
	}
	lab.StopAfter(t, d)
	g.daemons[2] = d
	g.meet()
	g.want(0, "n2: v2 RUNNING [lan (101)]\nn3: v3 RUNNING [lan (101)]", ".columns name,state,vlan vm info")
	if err := g.ping(0, "10.1.0.3"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	g.do(0, "clear all")
}

// Numbers of VLANs agree when hosts allocate at the same moment, and again when
// a split heals; running VMs follow.
func TestVLANsAgree(t *testing.T) {
	g := newGroup(t, 4)
	g.together(func(n int) { g.run(n, "namespace lab vlans add a%d auto", n) }) // refused, but makes the namespace
	g.together(func(n int) {
		for i := range 10 {
			g.run(n, "namespace lab vm config net own-%d-%d shared-%d", n, i, i)
		}
	})
	g.agree()

	hosts := g.lab.Hosts
	if err := g.lab.Split(hosts[:2], hosts[2:]); err != nil {
		t.Fatal(err)
	}
	for n := range hosts {
		g.await(n, ": 2", ".columns size mesh status")
	}
	for _, n := range []int{0, 2} {
		g.do(n, "namespace split", "ns del-hosts all", "ns add-hosts localhost", "vm config filesystem "+g.root, "vm config memory 64")
		g.run(n, "vm config net mine-%d both", n)
		g.do(n, fmt.Sprintf("vm config init /init ip=veth0:10.%d.0.2/24 ip=veth1:10.9.%d.2/24", n+1, n), fmt.Sprintf("vm launch container v%d", n), "vm start all")
	}
	if err := g.lab.Split(hosts); err != nil {
		t.Fatal(err)
	}
	g.meet()
	g.agree()
	for _, n := range []int{0, 2} {
		g.run(n, "tap create both ip 10.9.%d.1/24 probe%d", n, n)
		if err := g.ping(n, fmt.Sprintf("10.9.%d.2", n)); err != nil {
			t.Errorf("the VM did not follow its VLAN: %v\n%s\n%s", err, g.run(n, ".columns vlan vm info"), g.run(n, "vlans"))
		}
	}
	g.do(0, "clear all")
}

// together does something on all hosts at once.
func (g *group) together(do func(n int)) {
	done := make(chan struct{})
	for n := range g.daemons {
		go func() { defer func() { done <- struct{}{} }(); do(n) }()
	}
	for range g.daemons {
		<-done
	}
}

// agree waits until all hosts have the same VLANs, each number once.
func (g *group) agree() {
	g.t.Helper()
	var tables []string
	for end := time.Now().Add(commandTime); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		tables = nil
		for n, d := range g.daemons {
			rows := strings.Split(strings.ReplaceAll(g.run(n, "namespace lab vlans")+"\n"+g.run(n, "namespace split vlans"), d.Host.Name+": ", ""), "\n")
			slices.Sort(rows)
			tables = append(tables, strings.TrimSpace(strings.Join(rows, "\n")))
		}
		if slices.Min(tables) == slices.Max(tables) {
			break
		}
	}
	if slices.Min(tables) != slices.Max(tables) {
		g.t.Fatalf("VLANs differ:\n%s", strings.Join(tables, "\n\n"))
	}
	seen := map[string]string{}
	for row := range strings.SplitSeq(tables[0], "\n") {
		alias, number, _ := strings.Cut(row, " ")
		if other, ok := seen[number]; ok {
			g.t.Errorf("%s and %s both are VLAN %s", alias, other, number)
		}
		seen[number] = alias
	}
}

// A namespace over several hosts is saved where its VMs are, and launched again
// there; what cannot be saved on one host is saved on none.
func TestClusterSave(t *testing.T) {
	g := newGroup(t, 3)
	g.do(0, "namespace lab", "vm config memory 32", "vm config schedule n2", "vm launch kvm k2", "vm config schedule n3", "vm launch kvm k3",
		"vm config filesystem "+g.root, "vm launch container c3", "vm start all", "ns save monday")
	g.want(0, "n1: !saved VM with this name already exists", "ns save monday")
	g.want(0, "n1: 2 2", "ns save")
	saved := func(n int, name string) string { return filepath.Join(g.daemons[n].Base, "files/saved", name) }
	for n, state := range []string{"launch.mm", "monday/k2.state", "monday/k3.state"} {
		if n == 0 {
			state = "monday/" + state
		}
		if st, err := os.Stat(saved(n, state)); err != nil || st.Size() == 0 {
			t.Errorf("n%d: %v", n+1, err)
		}
	}
	if err := os.MkdirAll(saved(2, "tuesday"), 0o755); err != nil {
		t.Fatal(err)
	}
	g.want(0, "n1: !host n3: saved VM with this name already exists", "ns save tuesday")
	for n := range 2 {
		if left, _ := filepath.Glob(filepath.Join(saved(n, ""), "*tuesday*")); left != nil {
			t.Errorf("n%d has %s", n+1, left)
		}
	}
	g.do(0, "clear namespace lab")
	script, err := os.ReadFile(saved(0, "monday/launch.mm"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(script)) {
		if !strings.HasPrefix(line, "shell sleep") {
			g.do(0, strings.TrimSpace(line))
		}
	}
	g.want(0, "n2: k2 RUNNING\nn3: k3 RUNNING\nn3: c3 RUNNING", ".columns name,state vm info")
	g.do(0, "clear all")
}

// The commands of the page about several hosts run as they are written there,
// on three hosts.
func TestClusterDocs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	page, err := os.ReadFile("../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	l := lab.Make(t, lab.Options{Hosts: 3, Own: []string{"/tmp", "/root"}, Keep: []string{filepath.Dir(program)}})
	hosttest.Machine{Marks: []string{l.ID}}.Check(t)
	g := &group{t: t, lab: l, key: filepath.Join(l.Dir, "key")}
	shell := func(script string) {
		t.Helper()
		cmd := l.Hosts[0].Command(t.Context(), "bash", "-euc", "PATH="+filepath.Dir(program)+":$PATH; "+script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s%v\n%s", script, err, out)
		}
	}
	for _, b := range blocks(string(page)) {
		if b.lang == "sh" {
			if g.daemons != nil {
				b.text = strings.ReplaceAll(b.text, "/tmp/minimega", g.daemons[0].Base)
			}
			shell(b.text)
			continue
		}
		if g.daemons == nil { // the page has made a key by now
			shell("cp /root/copy.key " + g.key)
			g.daemons, err = l.StartAll(t.Context(), program, func(*lab.Host) []string { return g.flags() })
			if err != nil {
				t.Fatal(err)
			}
			lab.StopAfter(t, g.daemons...)
			g.meet()
		}
		for line := range strings.Lines(b.text) {
			if got := g.run(0, "%s", strings.TrimSpace(line)); strings.Contains(got, ": !") {
				t.Errorf("%s: %s", strings.TrimSpace(line), got)
			}
		}
	}
}
