package tests

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/lab"
)

// lineHosts stand in a line: each reaches only those beside it.
const lineHosts = 4

// Hosts that cannot reach each other are one mesh all the same: commands, files
// and logs go by way of those between. The first is the head node.
func TestLine(t *testing.T) {
	g := newGroupOf(t, lineHosts, func(h *lab.Host) []string {
		at := int(h.IP.As4()[3])
		for other := 1; other <= lineHosts; other++ {
			if other >= at-1 && other <= at+1 {
				continue
			}
			if out, err := h.Command(t.Context(), "ip", "route", "add", "blackhole", fmt.Sprintf("10.77.0.%d/32", other)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		return []string{"-headnode", "n1", "-rate", "32M"}
	})
	ends := [2]*lab.Host{g.lab.Hosts[0], g.lab.Hosts[lineHosts-1]}
	if err := ends[0].Do(func() error {
		c, err := net.DialTimeout("tcp", ends[1].IP.String()+":9000", time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}); err == nil {
		t.Fatal("the ends of the line reach each other")
	}
	g.want(0, "n1: n1\n |--n2\nn2\n |--n1\n |--n3\nn3\n |--n2\n |--n4\nn4\n |--n3", "mesh list")
	for _, sub := range []struct {
		name string
		test func(*group)
	}{{"files", filesInLine}, {"break", breakInLine}, {"logs", logsInLine}, {"load", loadOfHosts}} {
		t.Run(sub.name, func(t *testing.T) {
			inner := *g
			inner.t = t
			sub.test(&inner)
		})
	}
	g.do(0, "clear all")
	for _, d := range g.daemons {
		if strings.Contains(d.Output(), "delivery tag") {
			t.Errorf("%s logs what gossipsub says of tags", d.Host.Name)
		}
	}
}

// A file comes from one end of the line to the other, and where hosts have other
// content under one name, that of the head node.
func filesInLine(g *group) {
	content := noise(5, 9<<20)
	g.put(0, "big", content)
	g.do(3, "vm config disk file:big")
	g.has(3, "big", content)
	g.put(3, "back", content)
	g.do(0, "vm config disk file:back")
	g.has(0, "back", content)

	g.put(0, "two", []byte("of the head node"))
	g.put(2, "two", []byte("other"))
	g.do(3, "file get two")
	g.await(3, " two 16 ", "file list")
	g.has(3, "two", []byte("of the head node"))
	if got := g.run(2, "file get two"); !strings.Contains(got, "different content under one name") {
		g.t.Errorf("file get of what is here and differs: %s", got)
	}
}

// A file of which some has come when a host between dies comes all the same, if
// that host is soon back.
func breakInLine(g *group) {
	content := noise(8, 24<<20)
	g.put(0, "far", content)
	answer := make(chan string, 1)
	go func() { answer <- g.run(3, "vm config disk file:far") }()
	g.seeComing(3, answer)
	g.daemons[1].Kill()
	g.again(1)
	if got := <-answer; got != "" {
		g.t.Errorf("got %q", got)
	}
	g.has(3, "far", content)
}

// The log of all hosts is that of the head node, too.
func logsInLine(g *group) {
	g.want(3, "n4: sending all logs to node n1", "log mesh")
	g.want(0, "n1: mesh logging disabled", "log mesh")
	g.do(0, "log ring 500")
	g.put(2, "tell", []byte("x"))
	g.do(3, "file get tell")
	g.await(0, "n4: file distribution: file is here file=tell", "log ring")
	g.want(3, "n4: !node n9 not in mesh", "log mesh n9")
	g.want(3, "n4: !cannot mesh log to yourself", "log mesh n4")
	g.do(3, "clear log mesh")
	g.want(3, "n4: mesh logging disabled", "log mesh")
}

// Where VMs go follows the load of hosts as `ns load` measures it, and what
// `vm config` says of a VM's company.
func loadOfHosts(g *group) {
	g.do(0, "namespace load", "vm config filesystem "+g.root)
	g.want(0, "n1: cpucommit", "ns load")
	for n, config := range []string{"vcpus 1,memory 96,net a b", "vcpus 4,memory 32,net a b", "vcpus 4,memory 64,net a"} {
		for field := range strings.SplitSeq(config, ",") {
			g.run(0, "vm config %s", field)
		}
		g.do(0, fmt.Sprintf("vm config schedule n%d", n+2), fmt.Sprintf("vm launch container base%d", n+2))
	}
	g.do(0, "clear vm config", "vm config filesystem "+g.root, "vm config memory 32", "ns queueing true", "vm launch container next")
	for load, host := range map[string]string{"cpucommit": "n2", "memcommit": "n3", "netcommit": "n4"} {
		g.do(0, "ns load "+load)
		g.want(0, "n1: "+load, "ns load")
		g.want(0, "n1: next "+host, "ns schedule dry-run")
	}
	g.do(0, "ns flush", "ns load netcommit", "vm config colocate base3", "vm launch container friend[1-2]", "clear vm config colocate")
	g.want(0, "n1: friend1 n3\nn1: friend2 n3", "ns schedule dry-run")
	g.do(0, "vm config coschedule 1", "vm launch container picky")
	// One other VM is bearable, two are not; the load is least on n4.
	got := strings.Split(g.run(0, "ns schedule dry-run"), "\n")
	slices.Sort(got)
	if want := []string{"n1: friend1 n3", "n1: friend2 n3", "n1: picky n4"}; !slices.Equal(got, want) {
		g.t.Errorf("ns schedule dry-run: %q", got)
	}
	g.do(0, "ns queueing false", "vm launch")
	g.want(0, "n2: base2\nn3: base3\nn3: friend1\nn3: friend2\nn4: base4\nn4: picky", ".columns name vm info")
	got = strings.Split(g.run(0, ".columns state,launched,failures,total,hosts ns schedule status"), "\n")
	if want := "n1: completed 3 0 3 3"; len(got) != 4 || got[3] != want {
		g.t.Errorf("ns schedule status: %q, want the last to be %q", got, want)
	}
	g.do(0, "clear vm config coschedule", "vm config colocate nobody")
	g.want(0, "n1: !nonexistent colocate VMs: [nobody]", "vm launch container x")
	g.want(0, "n1: !cannot specify schedule and colocate in the same config", "vm config schedule n2")
}
