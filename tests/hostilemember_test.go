package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"minimega/pkg/meshage"
	"minimega/pkg/meshage/membership"
)

// hostileEnv has the key file for a process of this test that is the hostile
// member.
const hostileEnv = "MINIMEGA_TEST_HOSTILE"

// A member of the mesh that asks for nonsense and answers with it harms nobody:
// the others go on, and name it where they need its answer.
func TestHostileMember(t *testing.T) {
	if key := os.Getenv(hostileEnv); key != "" {
		beHostile(t, key)
		return
	}
	g := newGroup(t, 3)
	if err := g.daemons[2].Stop(); err != nil {
		t.Fatal(err)
	}
	g.meet()
	cmd := g.lab.Hosts[2].Command(t.Context(), os.Args[0], "-test.run=^TestHostileMember$", "-test.v")
	cmd.Env = append(cmd.Env, hostileEnv+"="+g.key, programsEnv+"="+filepath.Dir(program), "TMPDIR="+g.lab.Dir)
	cmd.Dir = g.lab.Dir
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		end.Close()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the hostile member: %v\n%s", err, said.String())
		}
	}()
	for n := range 2 {
		g.await(n, ": 3", ".columns size mesh status")
	}
	g.do(0, "namespace lab", "vm config filesystem "+g.root, "vm config memory 32", "vm config schedule n2", "vm launch container a1")
	g.hear()
	for end := time.Now().Add(commandTime); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(asked(g.key)); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the hostile member has not asked for everything")
		}
	}
	g.want(0, "n2: a1", ".columns name .filter name=a1 mesh send n2 namespace lab vm info")
	g.want(1, "n1: minimega 4", "mesh send n1 echo minimega 4")
	for n := range 2 {
		if !g.daemons[n].Running() || strings.Contains(g.daemons[n].Output(), "inside minimega") || strings.Contains(g.daemons[n].Output(), "panic") {
			t.Errorf("n%d:\n%s", n+1, g.daemons[n].Output())
		}
		if strings.Contains(g.daemons[n].Output(), "\x1b") {
			t.Errorf("n%d logs what commands a terminal", n+1)
		}
	}
}

// asked is the file that says that the hostile member has asked for everything.
func asked(key string) string { return key + ".asked" }

// hear has the first host need answers of the hostile member, as many times as
// it knows lies. What the second host does is done, and is what it says.
func (g *group) hear() {
	g.t.Helper()
	for i := range hostileAnswers() {
		name := fmt.Sprint("b", i)
		for _, c := range []struct{ line, begin string }{
			{".columns name .filter name=a1 vm info", "n2: a1"}, {"version", "n2: minimega 4"}, {"ns run echo x", "n2: x"},
			{"vm tag a1 said " + name, ""},
		} {
			got := g.run(0, "%s", c.line)
			blame, _ := strings.CutPrefix(got, c.begin)
			if len(blame) == len(got) && c.begin != "" || blame != "" && !strings.Contains(blame, "n3") || strings.Contains(got, "inside minimega") {
				g.t.Errorf("answer %d: %s: %q", i, c.line, got)
			}
		}
		if launched := g.run(0, "vm launch container %s", name); launched == "" {
			g.want(0, "n2: "+name, ".columns name .filter name=%s mesh send n2 namespace lab vm info", name)
		} else if !strings.Contains(launched, "n3") {
			g.t.Errorf("answer %d: vm launch: %q", i, launched)
		}
		g.want(0, "n2: a1 "+name, "mesh send n2 namespace lab vm tag a1 said")
	}
}

// frame is one as internal/cluster has it.
func frame(kind byte, payload string) string {
	return string(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))) + payload
}

// hostileAnswers are what the hostile member says, whatever it is asked.
func hostileAnswers() []string {
	const progress, answer, failure = 2, 3, 4
	return []string{
		"",
		"\x03",
		string(noise(7, 4096)),
		"\x03\xff\xff\xff\xffmuch",
		frame(9, "{}"),
		frame(answer, ""),
		frame(answer, "null"),
		frame(answer, "[]"),
		frame(answer, `{"Facts":{"CPUs":-1,"CPUCommit":-9223372036854775808,"MemTotal":-5,"MemCommit":9223372036854775807,"NetworkCommit":-3,"VMs":-2,"Limit":-99,"Tolerates":-1},"VMs":[{"Name":"../../x"},{"Name":"a1"},{}]}`),
		frame(answer, `{"Facts":{"CPUs":0,"MemTotal":0,"Limit":-1},"VMs":null}`),
		frame(answer, `[{"Name":"\u001b[2J","State":99,"Networks":[{}]}]`),
		frame(answer, "\x01\x00\x00\x00\x05{\n]},\x00\x00"),
		frame(answer, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		frame(answer, "\x01\x02n1\x03lie\x00\x00\x02\x01a\x02\x03\x01b\x01c"),
		frame(progress, "{") + frame(answer, "\x00"),
		frame(progress, `"\u001b[2J"`) + frame(progress, "5") + frame(answer, "{}"),
		frame(progress, `{"Done":-9223372036854775808,"Failed":9223372036854775807}`) + frame(answer, "{}"),
		frame(failure, "x"),
		frame(failure, `{"Kind":"not found","Text":"vm not found: a1"}`),
		frame(failure, `{"Kind":"\u001b","Host":"n1","VM":"\n","Text":"\u001b[2J\nn1: all is well"}`),
	}
}

// hostileRequests are what the hostile member asks for, by protocol.
var hostileRequests = map[string][]string{
	"survey":       {`{"Namespace":"../../x"}`, `[]`},
	"config":       {`{"Namespace":"lab","VM":"../x"}`, `{}`},
	"info":         {`{"Namespace":"\u0000"}`},
	"launch":       {`{}`, `{"Namespace":"../x"}`, `{"Namespace":"lab","Groups":[{}]}`, `{"Namespace":"lab","Groups":[{"Type":"bogus","Names":["q"],"Config":{}}]}`, `{"Namespace":"lab","Groups":[{"Type":"container","Names":["../q"],"Config":{}}]}`, `{"Namespace":"lab","Hosts":["\u0000","n99"],"Groups":[{"Type":"container","Names":["q"],"Config":{"Networks":[{"VLAN":-5,"Bridge":"/../x"}]}}]}`, `{"Namespace":"lab","Groups":[{"Type":"kvm","Names":["q"],"Config":{"Disks":[{"Path":"-x"}],"VCPUs":0}}]}`},
	"save":         {`{}`, `{"Namespace":"lab","Dir":"x"}`, `{"Namespace":"lab","Dir":"/proc/1/x"}`, `{"Namespace":"lab","Dir":"/","Undo":true}`},
	"tunnels":      {`{}`, `{"Bridge":"../x","Tunnels":{"Kind":"x","Hosts":["n1","n2"]}}`},
	"clear":        {`{"Namespace":"../x"}`, `{"Namespace":""}`},
	"command":      {`{}`, `{"Line":"namespace"}`, `{"Line":"\u0000\u001b\"'"}`, `{"Line":"read /dev/zero"}`, `{"Line":"mesh send all version"}`, `{"Line":"version","Flags":{"Mode":99}}`},
	"log":          {`{"Level":8,"Source":"\u001b[2J","Text":"\u001b[2J\nforged"}`, `{"Level":-9000000000}`},
	"vlan-propose": {`{}`, `{"ns":"lab","alias":"x","vlan":-1,"clock":1,"life":1}`, `{"alias":"x//y","vlan":5,"clock":18446744073709551615,"life":4294967295,"origin":"o"}`},
	"vlan-sync":    {`{}`, `{"digest":{"":""},"claims":[{}]}`, `{"digest":[1,2,3]}`},
}

// beHostile is the hostile member, until its input ends.
func beHostile(t *testing.T, keyFile string) {
	key, err := meshage.LoadKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	node, err := meshage.New(ctx, meshage.Options{Name: name, Context: "minimega", Port: 9000, Degree: membership.DegreeAuto, Key: key, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	answers := hostileAnswers()
	for kind := range hostileRequests {
		var next atomic.Uint64
		node.Handle("minimega/"+kind+"/1", func(_ context.Context, _ string, s meshage.Stream) {
			_ = s.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = s.Read(make([]byte, 1<<16))
			_, _ = s.Write([]byte(answers[int(next.Add(1)-1)%len(answers)]))
		})
	}
	for end := time.Now().Add(commandTime); len(node.Members()) < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it meets nobody")
		}
	}
	for _, payload := range append(hostileRequests["vlan-propose"], "", "[", "[{}]", strings.Repeat("[", 200<<10)) {
		if err := node.Broadcast(ctx, "vlans", []byte(payload)); err != nil {
			t.Error(err)
		}
	}
	for _, to := range []string{"n1", "n2"} {
		for kind, payloads := range hostileRequests {
			for _, payload := range payloads {
				for _, raw := range []string{frame(1, payload), payload, frame(1, payload)[:5], frame(2, payload)} {
					sayTo(t, node, to, "minimega/"+kind+"/1", raw)
				}
			}
		}
	}
	if err := os.WriteFile(asked(keyFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// sayTo sends something to a protocol of a host, and takes what comes back.
func sayTo(t *testing.T, node *meshage.Node, to, protocol, raw string) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := node.Open(ctx, to, protocol)
	if err != nil {
		t.Logf("%s at %s: %v", protocol, to, err)
		return
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(500 * time.Millisecond))
	_, _ = s.Write([]byte(raw))
	_ = s.CloseWrite()
	_, _ = s.Read(make([]byte, 1<<16))
}
