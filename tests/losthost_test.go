package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
)

// A host that dies while it works for a command on several hosts is named, what
// the others have done is there, and a namespace that ended without it is not
// said to have ended until it has.
func TestLostHost(t *testing.T) {
	g := newGroup(t, 4)
	g.link()
	g.do(0, "namespace lab")
	for _, lose := range []struct {
		in   string
		test func(*group)
	}{{"command", lostInCommand}, {"launch", lostInLaunch}, {"save", lostInSave}, {"clear", lostInClear}} {
		t.Run(lose.in, func(t *testing.T) {
			inner := *g
			inner.t = t
			lose.test(&inner)
		})
	}
	g.do(0, "clear all")
}

// lost is the number of the host that dies.
const lost = 2

// loseDuring runs a command on the first host, kills the daemon of the third as
// soon as there is a file, and returns what is answered.
func (g *group) loseDuring(command, file string) string {
	g.t.Helper()
	answer := make(chan string, 1)
	go func() { answer <- g.run(0, "%s", command) }()
	for end := time.Now().Add(commandTime); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			break
		}
		select {
		case got := <-answer:
			g.t.Fatalf("%s ends before %s is there:\n%s", command, file, got)
		default:
		}
		if time.Now().After(end) {
			g.t.Fatalf("%s: %s never is there", command, file)
		}
	}
	g.daemons[lost].Kill()
	start := time.Now()
	got := <-answer
	took := time.Since(start)
	g.t.Logf("%s: answered %v after n3 died", command, took)
	if took > lossSeen {
		g.t.Errorf("%s: that took longer than %v", command, lossSeen)
	}
	return got
}

// back starts the daemon of the third host again.
func (g *group) back() { g.t.Helper(); g.again(lost); g.link() }

// again starts a daemon that died.
func (g *group) again(n int) {
	g.t.Helper()
	d, err := g.daemons[n].Host.Start(g.t.Context(), program, g.flags()...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.daemons[n] = d
	g.meet()
}

// stuck writes a program that runs until a file is removed, which it makes, when
// it is called with a word of the host that dies, and else does something.
func (g *group) stuck(name, word, otherwise string) (program, marker string) {
	g.t.Helper()
	marker, program = filepath.Join(g.lab.Dir, name+".runs"), filepath.Join(g.lab.Dir, name)
	script := fmt.Sprintf("#!/bin/sh\ncase \"$(hostname) $*\" in %s)\n: >%s; while [ -e %s ]; do sleep 0.05; done; exit 1\nesac\n%s\n", word, marker, marker, otherwise)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		g.t.Fatal(err)
	}
	return program, marker
}

func lostInCommand(g *group) {
	program, marker := g.stuck("command", "n3*", "echo done on $(hostname)")
	got := g.loseDuring("ns run shell "+program, marker)
	if err := os.Remove(marker); err != nil {
		g.t.Error(err)
	}
	if !strings.HasPrefix(got, "n2: done on n2\n\nn3: !the host ") || !strings.HasSuffix(got, "\nn4: done on n4\n") || strings.Count(got, "!") != 1 {
		g.t.Errorf("got %q", got)
	}
	g.back()
}

func lostInLaunch(g *group) {
	program, marker := g.stuck("launch", "n3*/n3/base/*", `exec qemu-system-x86_64 "$@"`)
	g.do(0, "vm config memory 32", "vm config qemu "+program)
	got := g.loseDuring("vm launch kvm k[1-6]", marker)
	if err := os.Remove(marker); err != nil {
		g.t.Error(err)
	}
	if !strings.HasPrefix(got, "n1: !host n3: the host ") || !strings.HasSuffix(got, "(it was to launch k[2,5])") || strings.Contains(got, "\n") {
		g.t.Errorf("vm launch: %s", got)
	}
	if got := strings.Fields(g.run(0, "ns schedule status")); !slices.Equal(got[len(got)-5:], []string{"completed", "4", "2", "6", "3"}) {
		g.t.Errorf("ns schedule status: %q", got)
	}
	const n2, n4 = "n2: k1 BUILDING\nn2: k4 BUILDING\n", "n4: k3 BUILDING\nn4: k6 BUILDING"
	if got := g.run(0, ".columns name,state vm info"); !strings.HasPrefix(got, n2+"n3: !the host ") || !strings.HasSuffix(got, "\n"+n4) || strings.Count(got, "\n") != 4 {
		g.t.Errorf("vm info without n3: %s", got)
	}
	g.back()
	g.want(0, n2+n4, ".columns name,state vm info") // half made ones are gone
}

func lostInSave(g *group) {
	g.do(0, "clear vm config qemu", "vm config schedule n3", "vm launch kvm k7", "vm start all")
	pid, err := strconv.Atoi(strings.TrimPrefix(g.run(0, ".columns pid .filter name=k7 vm info"), "n3: "))
	if err != nil {
		g.t.Fatal(err)
	}
	hosttest.Freeze(g.t, pid) // so that it is not saved before its host dies
	saved := func(n int) string { return filepath.Join(g.daemons[n].Base, "files/saved") }
	got := g.loseDuring("ns save monday", filepath.Join(saved(lost), ".monday.part"))
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		g.t.Error(err)
	}
	if !strings.HasPrefix(got, "n1: !host n3: the host ") || strings.Contains(got, "\n") {
		g.t.Errorf("ns save: %s", got)
	}
	g.back() // and its half made save has gone
	for n := range g.daemons {
		if left, _ := filepath.Glob(filepath.Join(saved(n), "*monday*")); left != nil {
			g.t.Errorf("n%d has %s", n+1, left)
		}
	}
	g.do(0, "ns save monday")
	for n, name := range map[int]string{0: "launch.mm", 1: "k1.state", 2: "k7.state", 3: "k3.state"} {
		if _, err := os.Stat(filepath.Join(saved(n), "monday", name)); err != nil {
			g.t.Errorf("saved again: %v", err)
		}
	}
}

func lostInClear(g *group) {
	g.do(0, "ns bridge wire vxlan")
	g.daemons[lost].Kill()
	g.link()
	without := "n1: !host n3: the host is not in the mesh (`mesh list` shows who is; `ns del-hosts` takes it out of a namespace)"
	g.want(0, without, "clear namespace lab")
	g.want(0, without, "clear namespace lab")
	g.want(0, "", "namespace lab vm info") // and with the hosts that there are
	for _, n := range []int{1, 3} {
		g.want(n, "", "namespace lab vm info")
	}
	g.want(0, without, "clear namespace lab")
	g.daemons[0].Kill()
	g.again(0)
	g.want(0, without, "clear namespace lab")
	g.back()
	g.want(0, "n3: k7", ".columns name mesh send n3 namespace lab vm info")
	if got := g.run(lost, ".columns tunnels .filter bridge=wire bridge"); len(strings.Fields(got)) != 3 {
		g.t.Errorf("n3 has the tunnels %s", got)
	}
	g.do(0, "clear namespace lab")
	g.want(0, "", "mesh send n3 namespace lab vm info")
	g.want(lost, "n3: []", ".columns tunnels .filter bridge=wire bridge")
	g.daemons[lost].Kill()
	g.link()
	g.do(0, "clear namespace lab")
	g.back()
}
